"""YOLOv5's words, typed into val.py, detect.py or export.py: taken as meant, or answered by what to do instead."""

from pathlib import Path

import pytest

import detect
import export
import val
from utils.config.habits import ANYWAY, INSTEAD, OURS
from utils.env import REPO
from utils.errors import UserError

COMMON = {  # of every script of YOLOv5's: words as they are typed -> what our options say then
    "--weights a.pt": {"weights": "a.pt"},
    "--imgsz 320": {"imgsz": 320},
    "--img 320": {"imgsz": 320},
    "--img-size 320": {"imgsz": 320},
    "--imgsz 320 320": {"imgsz": 320},
    "--conf-thres 0.3": {"conf": 0.3},
    "--iou-thres 0.4": {"iou": 0.4},
    "--project there": {"project": "there"},
    "--name it=1": {"name": "it=1"},
    "--exist-ok": {"exist_ok": True},
    "--data coco128.yaml": {},
}
VAL_AND_DETECT = {
    "--weights a.pt b.pt": {"weights": ["a.pt", "b.pt"]},
    "--device 0": {"device": "0"},
    "--augment": {"tta": True},
    "--augment --half": {"tta": True, "amp": "fp16"},
    "augment=True": {"tta": True},
    "--half": {"amp": "fp16"},
    "--max-det 50": {"max_det": 50},
    "--save-txt --save-conf": {"save_txt": True},
    "--dnn": "onnxruntime",
    "--agnostic-nms": {"agnostic_nms": True},
    "--classes 0 2 3": {"classes": ["0", "2", "3"]},
}
WORDS = {
    "val.py": COMMON | VAL_AND_DETECT | {
        "--batch-size 4": {"batch": 4},
        "--task test": {"split": "test"},
        "--task val": {"split": "val"},
        "--task speed": "every evaluation",
        "--task study": "compare.py",
        "--workers 2": {"workers": 2},
        "--single-cls": {"single_cls": True},
        "--verbose": {},
        "--save-hybrid": "--errors",
        "--save-json": {},
        "save_json=True plots=False": {"noplots": True},
        "model=a.pt split=test": {"weights": "a.pt", "split": "test"},
    },
    "detect.py": COMMON | VAL_AND_DETECT | {
        "--source 0": {"source": "0"},
        "--view-img": "run's folder",
        "--save-csv": "predictions.json",
        "--save-format 1": "predictions.json",
        "--save-crop": {"save_crop": True},
        "--nosave": {"nosave": True},
        "--visualize": "not drawn",
        "--update": "best.pt",
        "--line-thickness 2": {"line_width": 2},
        "--hide-labels": {"hide_labels": True},
        "--hide-conf": {"hide_conf": True},
        "--hide-labels false": {"hide_labels": False},
        "--vid-stride 2": "ffmpeg",
        "show=False show_labels=False show_conf=True": {"hide_labels": True, "hide_conf": False},
        "show=True": "run's folder",
    },
    "export.py": COMMON | {
        "--include onnx": {"format": ["onnx"]},
        "--include torchscript onnx openvino": {"format": ["torchscript", "onnx", "openvino"]},
        "--include engine": "openvino",
        "--weights a.pt b.pt": "one network",
        "--imgsz 320 640": "one number",
        "--batch-size 4": {"batch": 4},
        "--device cpu": {},
        "--half": "float32",
        "half=False": {},
        "--inplace": {},
        "--keras": "TensorFlow",
        "--optimize": "TensorFlow",
        "--int8": "float32",
        "--per-tensor": "TensorFlow",
        "--dynamic": {"dynamic": True},
        "--simplify": {},
        "--mlmodel": "CoreML",
        "--opset 17": {"opset": 17},
        "--verbose": {},
        "--workspace 4": "TensorRT",
        "--nms": {"nms": True},
        "--agnostic-nms": "--nms",
        "--topk-per-class 100": "--max-det",
        "--topk-all 100": {"max_det": 100},
    },
}  # fmt: skip
SCRIPTS = {"val.py": val, "detect.py": detect, "export.py": export}
REST = {"val.py": "weights data", "detect.py": "weights source", "export.py": "weights"}
CASES = [(script, words) for script, table in WORDS.items() for words in table]


@pytest.mark.parametrize(("script", "words"), CASES)
def test_a_word_of_yolov5_is_taken_or_answered(script, words):
    wanted = WORDS[script][words]
    words = words.split()
    given = {"weights"} if "model=a.pt" in words else {word.removeprefix("--") for word in words}
    rest = [f"--{key}=x.pt" for key in REST[script].split() if key not in given]
    if isinstance(wanted, str):
        with pytest.raises(UserError) as raised:
            SCRIPTS[script].read_options([*words, *rest])
        message = str(raised.value)
        assert wanted in message and "\n" not in message and "unknown option" not in message
        return
    for line in ([*words, *rest], [*rest, *words]):
        options, notes = SCRIPTS[script].read_options(line)
        told = options.model_dump(exclude_unset=True)
        assert {key: told.pop(key) for key in wanted} == wanted
        assert told.keys() <= set(REST[script].split()) | {"data"}, "nothing else is changed"
        assert all("\n" not in note for note in notes)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_answer_is_tried(script):
    tried = {word.strip("-").partition("=")[0].replace("-", "_") for words in WORDS[script] for word in words.split()}
    assert {*OURS[script], *ANYWAY[script], *INSTEAD[script]} - tried <= {"verbose"}
    fields = SCRIPTS[script].Options.model_fields.keys()
    assert set(OURS[script].values()) <= fields
    assert not ({*OURS[script], *ANYWAY[script]} & fields)


def test_the_table_of_the_docs_has_every_word():
    page = Path(REPO / "docs/coming-from-yolov5.md").read_text()
    typed = {word for table in WORDS.values() for words in table for word in words.split() if word.startswith("--")}
    assert not {word for word in typed if f"`{word}" not in page and f" {word}" not in page}
