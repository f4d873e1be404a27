"""Command line and hyp files -> one frozen run; what is wrong gets one message with a suggestion."""

import importlib.util
from pathlib import Path

import pytest
import yaml

import val
from data.definition.dataset_yaml import find_yaml, load_dataset_yaml
from data.report.main import main as report
from models.weights.find import find_weights
from utils.compare.arms import Compare, read_command
from utils.config.files import load_hyp_file
from utils.config.foreign import MEANT, OLD_SPELLINGS
from utils.config.help import allowed_words, help_text
from utils.config.options import parse_args
from utils.config.schema import Command, Hyp, save_hyp, with_gains
from utils.env import REPO
from utils.errors import UserError
from utils.schedule.preview import split_variants


@pytest.mark.parametrize("words", [["--lr0", "0.02"], ["--lr0=0.02"], ["lr0=0.02"], ["lr0=2e-2"]])
def test_one_option_four_spellings(words):
    assert parse_args(words)[1].lr0 == 0.02


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--img", "320"], "imgsz", 320),
        (["--img-size", "320"], "imgsz", 320),
        (["--batch-size", "8"], "batch", 8),
        (["--cos-lr"], "decay", "cosine"),
        (["cos_lr=True"], "decay", "cosine"),
        (["--adam"], "optimizer", "adam"),
        (["model=yolo11n.pt"], "weights", "yolo11n.pt"),
        (["--cfg", "yolov8n.yaml"], "weights", "yolov8n.yaml"),
        (["val=False"], "noval", True),
        (["--val", "False"], "noval", True),
        (["plots=False"], "noplots", True),
    ],
)
def test_old_spellings_work_and_name_the_new_one(words, key, value):
    _, hyp, notes = parse_args(words)
    assert getattr(hyp, key) == value
    assert any(key in note for note in notes)


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["optimizer=SGD"], "optimizer", "sgd"),
        (["amp=False"], "amp", "off"),
        (["--cache"], "cache", "ram"),
        (["--cache", "disk"], "cache", "disk"),
        (["device=0"], "device", "0"),
        (["--freeze", "10"], "freeze", 10),
        (["--freeze", "backbone"], "freeze", "backbone"),
        (["clip_norm=null"], "clip_norm", None),
        (["warmup_bias_lr=none"], "warmup_bias_lr", None),
        (["--noval", "--noplots"], "noplots", True),
        (["--no-multi-label"], "multi_label", False),
        (["name=007"], "name", "007"),
        (["ema_tau=auto"], "ema_tau", "auto"),
        (["save_period=-1"], "save_period", 0),
    ],
)
def test_values_as_users_write_them(words, key, value):
    assert getattr(parse_args(words)[1], key) == value


@pytest.mark.parametrize("words", [["--no-warmup"], ["warmup=none"], ["warmup_epochs=0"], ["--hyp", "no-warmup"]])
def test_all_ways_to_switch_warmup_off_are_one(words):
    hyp = parse_args(words)[1]
    assert (hyp.warmup, hyp.warmup_epochs) == ("none", 0.0)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--epocs", "3"], ["epocs", "Did you mean 'epochs'?"]),
        (["lr0=-1"], ["lr0", "-1", "greater than 0"]),
        (["lr0=abc"], ["lr0", "abc"]),
        (["batch=0"], ["batch", "at least 1"]),
        (["optimizer=auto"], ["optimizer: auto", "recipe: ultralytics", "musgd"]),
        (["optimizer=auto", "recipe=ultralytics-8.3"], ["optimizer: auto"]),
        (["optimizer=auto", "recipe=ultralytics", "batch=-1"], ["batch: -1"]),
        (["optimizer=musgd", "scale_lr=sqrt"], ["scale_lr", "summed"]),
        (["--freeze", "0", "1", "2"], ["'1' is neither", "--freeze [0,1,2]"]),
        (["pretrained=False"], ["'pretrained' is an option of YOLOv5 or ultralytics"]),
        (["--learning-rate", "0.1"], ["unknown option 'learning-rate'", "Did you mean 'lr0'?"]),
        (["num_workers=4"], ["Did you mean 'workers'?"]),
        (["optimizer=sdg"], ["optimizer", "Did you mean 'sgd'?"]),
        (["warmup=linaer"], ["warmup", "Did you mean 'linear'?"]),
        (["--epochs"], ["--epochs needs a value"]),
        (["--warmup"], ["--warmup needs a value", "linear | "]),
        (["train"], ["'train'", "--key value"]),
        (["my/data.yaml"], ["Did you mean --data my/data.yaml?"]),
        (["best.pt"], ["Did you mean --weights best.pt?"]),
        (["--rect"], ["rect", "no meaning here"]),
        (["rect=true"], ["rect", "no meaning here"]),
        (["lro=0.1"], ["lro", "Did you mean 'lr0'?"]),
        (["runs/lr0=0.1"], ["runs/lr0=0.1", "--key value"]),
        (["lr0=nan"], ["lr0", "nan"]),
        (["epochs=1.5"], ["epochs", "1.5"]),
        (["momentum=1"], ["momentum", "less than 1"]),
        (["ema_tau=0"], ["ema_tau", "above 0"]),
        (["--hyp", "nowhere"], ["nowhere", "default.yaml"]),
        (["--hyp", "fine-tune"], ["Did you mean 'finetune'?"]),
    ],
)
def test_wrong_words_get_one_message(words, parts):
    with pytest.raises(UserError) as error:
        parse_args(words)
    assert all(part in str(error.value) for part in parts), str(error.value)


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--data", "/x/version=3/data.yaml"], "data", "/x/version=3/data.yaml"),
        (["data=/x/version=3/data.yaml"], "data", "/x/version=3/data.yaml"),
        (["--data", "version=3.yaml"], "data", "version=3.yaml"),
        (["--weights", "runs/lr0=0.01/best.pt", "--epochs", "3"], "weights", "runs/lr0=0.01/best.pt"),
        (["--name", "lr0=0.005"], "name", "lr0=0.005"),
        (["--name=lr0=0.005", "lr0=0.005"], "name", "lr0=0.005"),
        (["--project", "runs/box=1", "--cache", "box=1"], "project", "runs/box=1"),
    ],
)
def test_values_may_hold_an_equals_sign(words, key, value):
    assert getattr(parse_args(words)[1], key) == value


def test_a_hyp_file_may_lie_in_a_folder_with_an_equals_sign(tmp_path):
    file = tmp_path / "lr0=0.02" / "hyp.yaml"
    file.parent.mkdir()
    file.write_text("lr0: 0.02\n")
    assert parse_args(["--hyp", str(file)])[1].lr0 == 0.02
    assert [v.hyp.lr0 for v in split_variants(["--plan", "--hyp", str(file), "epochs=3"])] == [0.02]
    _, _, arms, _, _ = read_command(
        ["--arm", "a", str(file), "--arm", "b", "lr0=0.3", "--data", "x.yaml", "weights=x.pt"]
    )
    assert [arm.hyp.lr0 for arm in arms] == [0.02, 0.3]


def test_a_text_is_never_taken_from_the_next_option():
    with pytest.raises(UserError, match="--data needs a value"):
        parse_args(["--data", "epochs=3"])


def test_two_wrong_values_are_named_together():
    with pytest.raises(UserError, match=r"(?s)lr0.*momentum|momentum.*lr0"):
        parse_args(["lr0=-1", "momentum=2"])


def test_the_command_line_of_ultralytics_says_what_the_script_does_anyway():
    _, hyp, notes = parse_args(["task=detect", "mode=train", "model=x.pt", "data=x.yaml", "pretrained=True"])
    assert (hyp.weights, hyp.data) == ("x.pt", "x.yaml") and sum("changes nothing" in note for note in notes) == 3


def test_words_of_other_trainers_are_suggested_for_keys_that_are():
    assert set(MEANT.values()) <= Hyp.model_fields.keys() | Compare.model_fields.keys()
    assert not MEANT.keys() & (Hyp.model_fields.keys() | Command.model_fields.keys() | OLD_SPELLINGS.keys())


def test_where_nothing_says_what_to_work_on_it_is_the_demo():
    """The same rule in all scripts; the demo's weights know none of the classes of the demo's data."""
    demo = parse_args(["--hyp", "demo"])[1]
    for words in ([], ["--epochs", "2"], ["--plan"]):
        command, hyp, notes = parse_args(words)
        assert command.hyp == "demo" and "--hyp demo" in notes[0]
        assert hyp.model_copy(update={"epochs": demo.epochs}) == demo
    options, notes = val.read_options(["--split", "train"])
    assert options.weights == demo.weights and "demo" in notes[0]
    known = load_hyp_file("demo-pretrain")[0]["data"]  # val.py scores the demo's weights on what they have learned
    assert find_yaml(options.data) == REPO / known
    for words in (["--weights", "x.pt"], ["--data", "x.yaml"], ["--hyp", "finetune"], ["--resume", "x.pt"]):
        assert not {demo.weights, demo.data} & {parse_args(words)[1].weights, parse_args(words)[1].data}
    assert read_command(["--epochs", "2"])[2][0].hyp.data == demo.data


def test_the_demo_is_found_from_any_folder(small_demo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for file in (REPO / "hyps").glob("demo*.yaml"):
        named = load_hyp_file(file.stem)[0]
        assert load_dataset_yaml(named["data"]).path == REPO / named["data"]
        assert find_weights(named["weights"]) == REPO / named["weights"]
    assert list(report(["--noplots", "--split", "val"])) == ["val"]
    assert "embedded demo" in capsys.readouterr().out


def test_order_is_default_file_command_line(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("lr0: 1e-3\nepochs: 7\n")
    _, hyp, notes = parse_args(["--hyp", str(file), "epochs=9"])
    assert (hyp.lr0, hyp.epochs, hyp.momentum) == (0.001, 9, Hyp().momentum), (
        "1e-3 is a number, though YAML 1.1 says no"
    )
    assert any("epochs: 9" in note and "7" in note for note in notes), "what the command line overrides is said"


def test_default_yaml_is_the_schema():
    text = (REPO / "hyps/default.yaml").read_text()
    written = {row.partition(":")[0] for row in text.splitlines()}
    assert not Hyp.model_fields.keys() - written, "keys of utils/config/keys.py without a line in hyps/default.yaml"
    assert load_hyp_file("default")[0] == {k: v for k, v in Hyp().model_dump().items()}
    for key, field in Hyp.model_fields.items():
        line = next(row for row in text.splitlines() if row.startswith(f"{key}:"))
        assert field.description in line, f"hyps/default.yaml explains {key} differently"


@pytest.mark.parametrize("path", sorted((REPO / "hyps").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_hyp_file_is_valid_and_says_only_what_differs(path):
    values, notes = load_hyp_file(path.stem)
    assert not notes
    hyp = Hyp(**values)
    if path.stem != "default" and hyp.recipe == "preheat":  # a recipe's file holds all numbers of its original
        same = [key for key, value in values.items() if value == getattr(Hyp(), key)]
        assert len(same) <= len(values) // 2, f"{path.name} repeats defaults: {same}"
    assert hyp.model_dump().keys() == Hyp.model_fields.keys()


def test_saved_hyp_repeats_the_run(tmp_path):
    hyp = Hyp(
        lr0=0.003, weights="a.pt", freeze=["model.0", "neck"], albumentations=[{"name": "Blur", "p": 0.1}], amp="off"
    )
    save_hyp(tmp_path / "hyp.yaml", hyp)
    assert parse_args(["--hyp", str(tmp_path / "hyp.yaml")])[1] == hyp


def test_yolov5_gains_are_refused_with_the_right_ones_named(tmp_path):
    file = tmp_path / "hyp.scratch-low.yaml"
    file.write_text("lr0: 0.01\nbox: 0.05\ncls: 0.5\nobj: 1.0\nanchor_t: 4.0\nfl_gamma: 0.0\n")
    hyp = parse_args(["--hyp", str(file)])[1]
    with pytest.raises(UserError, match=r"box: 7\.5"):
        with_gains(hyp, anchor_based=False)
    assert with_gains(hyp, anchor_based=True) == hyp and hyp.box == 0.05
    _, hyp, notes = parse_args(["--hyp", str(file), "--keep-gains"])
    assert with_gains(hyp, anchor_based=False) == hyp and hyp.box == 0.05
    assert any("recipe: yolov5" in note for note in notes), "the recipe that repeats its timing is named"


def test_gains_are_judged_by_their_final_values(tmp_path):
    file = tmp_path / "hyp.scratch-low.yaml"
    file.write_text("box: 0.05\ncls: 0.5\nobj: 1.0\nanchor_t: 4.0\n")
    with pytest.raises(UserError, match=r"cls: 0\.5 belong"):
        with_gains(parse_args(["--hyp", str(file), "box=7.5"])[1], anchor_based=False)
    hyp = with_gains(parse_args(["--hyp", str(file), "box=7.5", "cls=0.6"])[1], anchor_based=False)
    assert (hyp.box, hyp.cls) == (7.5, 0.6)


def test_gains_of_an_anchor_free_loss_do_not_reach_an_anchor_based_one(tmp_path):
    hyp = with_gains(Hyp(), anchor_based=True)
    assert (hyp.box, hyp.cls, hyp.gains) == (0.05, 0.5, "anchor-based"), "those of YOLOv5 where none are given"
    assert with_gains(hyp, anchor_based=True) == hyp
    with pytest.raises(UserError, match="gains=anchor-based"):
        with_gains(Hyp(box=3.0), anchor_based=True)
    assert with_gains(Hyp(box=0.1, gains="anchor-based"), anchor_based=True).box == 0.1
    assert Hyp(cls=0.3, gains="anchor-based").box == 0.05
    save_hyp(tmp_path / "hyp.yaml", hyp)
    assert parse_args(["--hyp", str(tmp_path / "hyp.yaml")])[1:] == (hyp, []), "our own file is none of YOLOv5's"


# args.yaml as a run of that version writes it: what each has that others lack, with values that are not the default's
ARGS = {
    "8.0": "task: detect\nmode: train\nmodel: yolov8n.pt\ndata: x.yaml\nepochs: 30\nbatch: 8\nimage_weights: false\n"
    "rect: false\ncos_lr: true\nmin_memory: false\noverlap_mask: true\nhalf: false\nline_thickness: 3\nboxes: true\n"
    "fl_gamma: 0.0\nlabel_smoothing: 0.0\nv5loader: false\nbox: 7.5\ncls: 0.6\nlr0: 0.02\noptimizer: SGD\namp: true\n",
    "8.1": "model: yolov8n.pt\ndata: x.yaml\nepochs: 30\nbatch: 8\ntime: null\nfraction: 1.0\nmulti_scale: false\n"
    "half: false\nauto_augment: randaugment\nerasing: 0.4\ncrop_fraction: 1.0\nembed: null\nshow_boxes: true\n"
    "line_width: null\nkobj: 1.0\nlabel_smoothing: 0.0\nbox: 7.5\ncls: 0.6\nlr0: 0.02\noptimizer: SGD\ncos_lr: true\n",
    "8.3": "model: yolov8n.pt\ndata: x.yaml\nepochs: 30\nbatch: 8\nhalf: true\nbgr: 0.0\ncopy_paste_mode: flip\n"
    "save_frames: false\nmulti_scale: false\nnbs: 64\nbox: 7.5\ncls: 0.6\nlr0: 0.02\noptimizer: SGD\ncos_lr: true\n",
}


@pytest.mark.parametrize("version", ARGS)
def test_args_yaml_of_every_version_of_ultralytics_loads(version, tmp_path):
    (tmp_path / "args.yaml").write_text(ARGS[version])
    _, hyp, notes = parse_args(["--hyp", str(tmp_path / "args.yaml"), "recipe=ultralytics"])
    assert (hyp.weights, hyp.epochs, hyp.batch, hyp.lr0, hyp.cls) == ("yolov8n.pt", 30, 8, 0.02, 0.6)
    assert (hyp.decay, hyp.amp, hyp.multi_scale) == ("cosine", "auto", 0.0)
    unused = [note for note in notes if "not used here" in note]
    assert len(unused) == 1 and "of ultralytics" in unused[0] and "half" in unused[0]
    assert not any("would change the result" in note for note in notes)


def test_what_would_change_the_result_elsewhere_is_said(tmp_path):
    (tmp_path / "args.yaml").write_text(ARGS["8.3"].replace("bgr: 0.0", "bgr: 0.5"))
    notes = parse_args(["--hyp", str(tmp_path / "args.yaml")])[2]
    assert any("would change the result" in note and "bgr: 0.5" in note for note in notes)
    assert any("changes nothing" in note for note in parse_args(["rect=false"])[2])


def test_the_whole_default_file_of_ultralytics_loads():
    """Their args.yaml is this file with other values; what has no meaning here is named in one line."""
    file = Path(importlib.util.find_spec("ultralytics").origin).parent / "cfg/default.yaml"
    _, hyp, notes = parse_args(["--hyp", str(file), "recipe=ultralytics"])
    assert hyp == Hyp(recipe="ultralytics", workers=8, optimizer="auto", deterministic=True)
    assert any("overlap_mask" in note and "tracker" in note for note in notes)
    _, hyp, notes = parse_args(["--hyp", str(file)])
    assert hyp.optimizer == "sgd" and any("optimizer: auto is not used" in note for note in notes)


def test_options_file_of_yolov5_loads(tmp_path):
    """opt.yaml of a run, and a hyp file without the anchor-based gains."""
    file = tmp_path / "opt.yaml"
    file.write_text(
        "weights: yolov5s.pt\ncfg: ''\ndata: data/coco128.yaml\nhyp: {lr0: 0.01}\nepochs: 30\nbatch_size: 8\n"
        "imgsz: 320\n"
        "rect: false\nresume: false\nnosave: false\nnoval: false\nnoautoanchor: false\nnoplots: false\nevolve: null\n"
        "bucket: ''\ncache: null\nimage_weights: false\ndevice: ''\nmulti_scale: false\nsingle_cls: false\n"
        "optimizer: SGD\nsync_bn: false\nworkers: 8\nproject: runs/train\nname: exp\nexist_ok: false\nquad: false\n"
        "cos_lr: true\nlabel_smoothing: 0.0\npatience: 100\nfreeze:\n- 0\nsave_period: -1\nseed: 0\nlocal_rank: -1\n"
        "entity: null\nupload_dataset: false\nbbox_interval: -1\nartifact_alias: latest\nsave_dir: runs/train/exp\n"
    )
    _, hyp, notes = parse_args(["--hyp", str(file), "recipe=yolov5"])
    assert (hyp.batch, hyp.imgsz, hyp.decay, hyp.freeze, hyp.optimizer) == (8, 320, "cosine", None, "sgd")
    assert any("upload_dataset" in note for note in notes)


@pytest.mark.parametrize(
    "text", ["a: [1", "- 1\n- 2", "\tlr0: 1", "!!python/object/apply:os.system ['touch hacked']", "lr0: {a: 1}"]
)
def test_broken_hyp_files(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match="bad.yaml|lr0"):
        parse_args(["--hyp", "bad.yaml"])
    assert not (tmp_path / "hacked").exists()


def test_hyp_is_frozen():
    with pytest.raises(Exception, match="frozen"):
        Hyp().lr0 = 1.0


def test_help_names_every_option():
    text = help_text("train.py")
    assert all(f"--{key.replace('_', '-')} " in text for key in {**Hyp.model_fields, **Command.model_fields})


@pytest.mark.parametrize("key", ["cache", "amp", "warmup", "decay", "head", "optimizer", "recipe", "ema_tau", "clock"])
def test_help_lists_the_words_of_a_key(key):
    line = next(row for row in help_text("train.py").splitlines() if row.startswith(f"  --{key.replace('_', '-')} "))
    for word in allowed_words(Hyp.model_fields[key]):
        assert word in line.partition("[")[2]


def test_hyp_yaml_is_plain(tmp_path):
    save_hyp(tmp_path / "hyp.yaml", Hyp())
    assert yaml.safe_load((tmp_path / "hyp.yaml").read_text())["lr0"] == 0.01


def test_save_every_is_minutes_or_batches():
    assert [parse_args([f"save_every={text}"])[1].save_every for text in ("2.5", "0", "200 batches", "1 batch")] == [
        *(2.5, 0.0),
        *("200 batches", "1 batches"),
    ]
    for text in ("-1", "0 batches", "soon", "true", "null"):
        with pytest.raises(UserError, match="save_every"):
            parse_args([f"save_every={text}"])
