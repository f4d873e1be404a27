"""Every kind of bad dataset yaml: read, read with care, or refused with advice; nothing runs and nothing explodes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import build_index
from utils.env import REPO
from utils.errors import UserError

PLAIN = "train: images\nval: images\nnames: [cat, dog]\n"


def write(root: Path, text: str | bytes) -> Path:
    """One labelled picture and a yaml."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (80, 60)).save(root / "images/a.jpg")
    (root / "labels/a.txt").write_text("0 0.5 0.5 0.2 0.2")
    (root / "data.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return root / "data.yaml"


NAMES = {
    "names: [cat, dog]": ["cat", "dog"],
    "names: {0: cat, 1: dog}": ["cat", "dog"],
    "names: {1: dog, 0: cat}": ["cat", "dog"],
    "names: {'0': cat, \"1\": dog}": ["cat", "dog"],
    "names: [no, yes, on, Off, Y]": ["no", "yes", "on", "Off", "Y"],
    "names: {0: no, 1: true}": ["no", "true"],
    "names: [1, 2.50, 010, 1e3, 2024-01-01, 12:30]": ["1", "2.50", "010", "1e3", "2024-01-01", "12:30"],
    "names: ['null', \"~\", =]": ["null", "~", "="],
    "names: [cat, null]": ["cat", "null"],
    "names:\n- cat\n- traffic light\nnc: 2": ["cat", "traffic light"],
    "names: [cat]\nnc: '1'": ["cat"],
    "nc: 2": ["class_0", "class_1"],  # as ultralytics
    "names: [ chèvre , 犬]": ["chèvre", "犬"],
    "base: &b [cat, dog]\nnames: *b": ["cat", "dog"],
}


@pytest.mark.parametrize("text", NAMES)
def test_names_are_the_text_that_was_written(tmp_path, text):
    assert load_dataset_yaml(write(tmp_path, f"train: images\n{text}\n")).names == NAMES[text]


REFUSED = {
    "": "data.yaml is empty",
    "# nothing\n": "is empty",
    "- train: images\n- val: images": "holds a list",
    "just words": "holds a str",
    "train: images\nnames:\n\t- cat": "Indent with spaces, not tabs",
    "train: images\nnames: [cat": "not a readable yaml",
    "train: images\nnames: {0: a, 2: b}": r"without gaps: \[0, 2\] lacks \[1\]",
    "train: images\nnames: {1: a, 2: b}": r"without gaps: \[1, 2\] lacks \[0\]",
    "train: images\nnames: {-1: a, 0: b}": "without gaps",
    "train: images\nnames: {99999999999999: a}": "without gaps",
    "train: images\nnames: {0: a, 0: b}": "line 2: '0' is there twice under 'names'",
    "train: images\nnames: {0: a, 00: b}": "there twice",
    "train: images\nnames: {cat: 0}": "must be class ids",
    "train: images\nnames: [a, a]": "'a'.*more than once",
    "train: images\nnames: [a, 'a ']": "more than once",
    "train: images\nnames: [a, ]\nnames: [b]": "'names' is there twice, first in line 2",
    "train: images\nnames:\n- a\n-": "name of class 1 is empty",
    "train: images\nnames: [a, [b, c]]": "name of class 1 is a list",
    "train: images\nnames: cat, dog": "'cat, dog', neither a list nor a dict",
    "train: images": "names no classes.*COCO json or a VOC folder",
    "train: images\nnames: []": "names no classes",
    "train: images\nnames: [a]\nnc: 3": "nc is 3, but 'names' has 1",
    "train: images\nnames: [a]\nnc: many": "nc is 'many'",
    "train: images\nnames: [a]\nnc: .inf": "nc is 'inf'",
    "train: images\nnames: [a]\nnc: yes": "nc is 'True'",
    "train: images\nnames: [a]\nnc: -1": "nc is '-1'",
    "train: 5\nnames: [a]": "'train' must be a path or a list of paths, not 5",
    "train: {a: images}\nnames: [a]": "'train' must be a path.*a dict",
    "train: [[images]]\nnames: [a]": "'train' must be a path.*a list",
    "path: [a, b]\nnames: [a]": "'path' must be a path",
    "path: C:\\data\\set\nnames: [a]": r"'path: C:\\data\\set' is a Windows path.*relative to the yaml",
    "train: D:/set/images\nnames: [a]": "Windows path",
    "path: \\\\server\\set\nnames: [a]": "Windows path",
    "path: nowhere\ntrain: images\nnames: [a]": r"nowhere does not exist \('path: nowhere'.*own folder \(ultral",
    "path: ~nobody-at-all/x\nnames: [a]": "no usable path",
    f"path: {'x' * 5000}\nnames: [a]": "no usable path",
    'path: "a\\0b"\nnames: [a]': "no usable path|does not exist",
    "train: images\nnames: [a]\nkpt_shape: [17, 3]": "kpt_shape.*keypoints",
    "train: images\nnames: [a]\nchannels: 10": "channels: 10",
    "train: images\nnames: !!python/object/apply:os.system ['touch {canary}']": "not a readable yaml",
    "train: !!python/name:os.system\nnames: [a]": "not a readable yaml",
    "train: images\nnames: [!!python/object/new:os.system ['touch {canary}']]": "not a readable yaml",
    "path: nowhere\nnames: [a]\ndownload: |\n  os.system('touch {canary}')\n  x": "a script, which is never run",
    "path: nowhere\nnames: [a]\ndownload: bash touch {canary}": "a script, which is never run",
    "path: nowhere\nnames: [a]\ndownload: https://example.com/x.zip": "--download",
    "train: images\nnames: [a]\nwhen: 2024-13-45": "not a readable yaml",
    "a: " + "[" * 3000: "nesting",
    "a: &a [*a]\nnames: [a]": "unfold without end|not a readable",
    b"\x89PNG\r\n\x1a\n\0\0\0": "binary, not text",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda t: repr(t[:40]))
@pytest.mark.parametrize("download", [False, True])
def test_bad_yamls_are_refused(tmp_path, text, download):
    canary = tmp_path / "canary"
    content = text if isinstance(text, bytes) else text.replace("{canary}", str(canary))
    if download and "example.com" in str(text):
        pytest.skip("would ask the network")
    with pytest.raises(UserError) as e:
        load_dataset_yaml(write(tmp_path, content), download=download)
    expected = "scripts are never run" if download and "download:" in str(text) else REFUSED[text]
    assert re.search(f"(?s){expected}", str(e.value)), e.value
    assert len(str(e.value)) < 6000 and not canary.exists()


def laughs(levels: int) -> str:
    rows = ["l0: &l0 [" + ", ".join(["ha"] * 9) + "]"]
    rows += [f"l{k}: &l{k} [" + ", ".join([f"*l{k - 1}"] * 9) + "]" for k in range(1, levels)]
    return "\n".join([*rows, f"names: *l{levels - 1}", f"train: *l{levels - 1}", ""])


def merged(levels: int) -> str:
    rows = ["l0: &l0 {a: 1, b: 2}"]
    rows += [f"l{k}: &l{k}\n  <<: [" + ", ".join([f"*l{k - 1}"] * 9) + "]" for k in range(1, levels)]
    return "\n".join([*rows, "names: [a]", ""])


@pytest.mark.parametrize("text", [laughs(12), merged(12)])
def test_alias_bombs_are_refused_in_little_memory_and_time(tmp_path, text):
    code = """
import resource, sys, time
from data.definition.dataset_yaml import load_dataset_yaml
from utils.errors import UserError
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try:
    load_dataset_yaml(sys.argv[1])
except UserError as e:
    assert "aliases" in str(e) and len(str(e)) < 500, e
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.process_time() - start)
"""
    command = [sys.executable, "-c", code, str(write(tmp_path, text))]
    out = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout
    grown, seconds = map(float, out.split())
    assert grown < 30 * 1024 and seconds < 5  # KB


@pytest.mark.parametrize(
    "content", [PLAIN.encode("utf-16"), b"\xef\xbb\xbf" + PLAIN.encode(), PLAIN.replace("\n", "\r\n").encode()]
)
def test_encodings(tmp_path, content):
    assert load_dataset_yaml(write(tmp_path, content)).names == ["cat", "dog"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_missing_splits_are_refused_with_advice(tmp_path, split):
    config = load_dataset_yaml(write(tmp_path, re.sub(f"{split}: .*\n", "", PLAIN)))
    with pytest.raises(UserError, match=f"has no '{split}'. Add '{split}: <folder>'"):
        build_index(config, split)


def test_validation_is_val_as_in_ultralytics(tmp_path):
    config = load_dataset_yaml(write(tmp_path, PLAIN.replace("val:", "validation:")))
    assert config.val == [tmp_path / "images"]


def test_an_empty_folder_is_refused(tmp_path):
    file = write(tmp_path, PLAIN.replace("val: images", "val: other"))
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="no pictures in .*other"):
        build_index(load_dataset_yaml(file), "val")


@pytest.mark.parametrize(
    ("text", "root", "train"),
    [
        ("path: .\ntrain: images", "sub", "sub/images"),
        ("train: images", "sub", "sub/images"),
        ("path: ..\ntrain: elsewhere/images", ".", "elsewhere/images"),
        ("train: ../elsewhere/images", "sub", "elsewhere/images"),
        ("train: ../images", "sub", "sub/images"),  # Roboflow's, as ultralytics reads it
        ("path: .\\\ntrain: .\\images\\", "sub", "sub/images"),
        ("path: ../sub\ntrain: images\\train", "sub", "sub/images/train"),
        ("train: sub/images/train", "sub", "sub/images/train"),  # seen from the folder above, as Roboflow downloads
        ("train: /content/sub-1/images/train", "sub", "sub/images/train"),  # of another machine
        ("train: C:\\sets\\images\\train", "sub", "sub/images/train"),
        ("path: /content/sets/sub-1\ntrain: images/train", "sub", "sub/images/train"),
    ],
)
def test_paths_start_at_the_yaml(tmp_path, monkeypatch, text, root, train):
    file = write(tmp_path / "sub", f"{text}\nnames: [a]\n")
    (tmp_path / "elsewhere/images").mkdir(parents=True)
    (tmp_path / "sub/images/train").mkdir()
    monkeypatch.chdir("/")
    config = load_dataset_yaml(file)
    assert config.root.resolve() == (tmp_path / root).resolve()
    assert [p.resolve() for p in config.train] == [(tmp_path / train).resolve()]


def test_the_end_of_a_path_is_no_guess_where_it_may_be_another_splits(tmp_path):
    """/content/train/images must not become `images`, which may hold val."""
    config = load_dataset_yaml(write(tmp_path, "train: /content/train/images\nval: images\nnames: [a]\n"))
    assert config.val == [tmp_path / "images"] and config.train == [Path("/content/train/images")]
    with pytest.raises(UserError, match="/content/train/images does not exist"):
        build_index(config, "train")


def ultralytics_yamls() -> list[Path]:
    import ultralytics

    return sorted((Path(ultralytics.__file__).parent / "cfg/datasets").glob("*.yaml"))


@pytest.mark.parametrize("file", ultralytics_yamls(), ids=lambda p: p.stem)
def test_yamls_of_ultralytics_are_understood(file, tmp_path):
    """All of them, whatever the task, up to the folder that is not there; then their splits resolve."""
    copy = tmp_path / file.name
    copy.write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=re.escape(str(tmp_path)) + r".* does not exist \('path: ") as e:
        load_dataset_yaml(copy)
    assert ("--download" in str(e.value)) != ("never run" in str(e.value)) or "download:" not in file.read_text()
    if "kpt_shape" in file.read_text() or re.search("channels: 10", file.read_text()):
        return
    (tmp_path / re.search(r"^path: *(\S+)", file.read_text(), re.M)[1]).mkdir(parents=True, exist_ok=True)
    config = load_dataset_yaml(copy)
    assert config.names and config.train and all(tmp_path in p.parents for p in config.train)


def test_a_list_of_pictures_may_be_utf16_but_not_binary(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "images/a.jpg")
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.2 0.2")
    (tmp_path / "data.yaml").write_text("path: .\ntrain: train.txt\nval: val.txt\nnames: [cat]\n")
    (tmp_path / "train.txt").write_bytes("./images/a.jpg\r\n".encode("utf-16"))
    (tmp_path / "val.txt").write_bytes(bytes(range(256)))
    config = load_dataset_yaml(tmp_path / "data.yaml")
    assert build_index(config, "train").n == 1
    with pytest.raises(UserError, match="val.txt is no list of pictures"):
        build_index(config, "val")


def test_a_folder_is_the_only_yaml_in_it(tmp_path):
    file = write(tmp_path, PLAIN)
    assert load_dataset_yaml(tmp_path) == load_dataset_yaml(file)


@pytest.mark.parametrize(("folder", "names"), [("", "obj.names"), ("data", "data/obj.names"), ("", "data/obj.names")])
def test_data_files_of_darknet_and_cvat_are_read(tmp_path, folder, names):
    """Their paths start at the file, at the folder above it, or are those of a machine that had it all in data/."""
    home = tmp_path / folder
    (home / "obj_train_data").mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(home / "obj_train_data/a.jpg")
    (home / "obj_train_data/a.txt").write_text("1 0.5 0.5 0.2 0.2\n")
    (home / "train.txt").write_text("data/obj_train_data/a.jpg\n")
    (home / "obj.names").write_text("cat\ntraffic light\n")
    told = f"# of CVAT\nclasses = 2\ntrain = data/train.txt\nnames = {names}\nbackup = backup/\n"
    (home / "obj.data").write_text(told)
    config = load_dataset_yaml(home / "obj.data")
    index = build_index(config, "train")
    assert index.names == ["cat", "traffic light"] and index.classes.tolist() == [1] and config.val is None
    (home / "obj.data").write_text(told + "valid = train.txt\n")
    assert build_index(load_dataset_yaml(home / "obj.data"), "val").n == 1
    (home / "obj.data").write_text(told.replace("classes = 2", "classes = 3"))
    with pytest.raises(UserError, match="nc is 3, but 'names' has 2"):
        load_dataset_yaml(home / "obj.data")
    (home / "obj.data").write_text("classes = 2\n")
    with pytest.raises(UserError, match="no line 'train = list.txt'"):
        load_dataset_yaml(home / "obj.data")


@pytest.mark.parametrize("wrong", ["board/boards.yaml", "boards/board.yaml", "boards/bords.yml"])
def test_a_wrong_path_suggests_the_yaml_that_is_there(tmp_path, monkeypatch, wrong):
    write(tmp_path / "boards", PLAIN).rename(tmp_path / "boards/boards.yaml")
    monkeypatch.chdir(tmp_path)
    for path in (wrong, tmp_path / wrong):
        with pytest.raises(UserError, match="not found; .*Did you mean '.*boards/boards.yaml'"):
            load_dataset_yaml(path)
    with pytest.raises(UserError, match="Did you mean 'toy-target.yaml'"):
        load_dataset_yaml("toy-targe.yaml")
