"""Words of YOLOv5's and ultralytics' val, detect and export: ours, or what to do in their place. PURE."""

from utils.errors import UserError

OURS = {  # by script, what has another name
    "val.py": {"augment": "tta"},
    "detect.py": {
        "augment": "tta",
        "line_thickness": "line_width",
        "show_labels": "hide_labels",
        "show_conf": "hide_conf",
    },
    "export.py": {"include": "format", "topk_all": "max_det"},
}
INVERSE = ("show_labels", "show_conf")  # ultralytics says show_labels=False
FREE = ("name", "project", "source")  # their value may look like an option
LISTS = ("imgsz", "img", "img_size", "classes")  # of several values there: height and width; class by class
VALUED = {"data", "device", "workspace", "vid_stride", "topk_per_class", "save_format", "task", "fraction"}
FALSE = {"false", "0", "none", "null"}
NAMES = "the names of the classes are in the weights"
TXT = "labels/*.txt have the score always"
# what is done anyway, or changes no result, by script; the option is dropped, and this is said
ANYWAY = {
    "val.py": {
        "save_conf": TXT,
        "save_json": "predictions.json is always written, and scored as pycocotools does",
        "verbose": "the table has every class always",
    },
    "detect.py": {"save_conf": TXT, "data": NAMES, "verbose": "the bar counts pictures, and files are in the folder"},
    "export.py": {
        "data": NAMES,
        "device": "a file is written and compared on the CPU, and runs on any device",
        "inplace": "the head is exported without writing in place always",
        "simplify": "the program that opens an ONNX file simplifies it",
        "verbose": "what is written and how it agrees is printed always",
    },
}
NO_WINDOW = "no window is opened; look at the pictures and videos in the run's folder"
ONNX = "onnxruntime runs an .onnx, --weights best.onnx"
OTHER_FORMATS = (
    "it is for TensorFlow, CoreML or TensorRT, which are not written; --format has onnx, torchscript and openvino"
)
# what is not there, by script, and what to do in its place
INSTEAD = {
    "val.py": {
        "save_hybrid": "truth mixed into what was found makes no score; --errors shows both side by side",
        "dnn": ONNX,
        "task": "every evaluation prints the time of a picture, compare.py runs several settings",
    },
    "detect.py": {
        "view_img": NO_WINDOW,
        "show": NO_WINDOW,
        "save_csv": "predictions.json has every box, its class, score and file",
        "save_format": "labels/*.txt are as YOLO has them, predictions.json as COCO: x y w h in pixels",
        "visualize": "features are not drawn",
        "update": "best.pt holds what detecting needs and no optimizer already",
        "dnn": ONNX,
        "vid_stride": "every frame is looked at; thin the video out before (ffmpeg -i video.mp4 -r 5 thin.mp4)",
    },
    "export.py": {
        "half": "files hold float32; the program that runs one may compute in less",
        "int8": "files hold float32; quantise the ONNX file with the tools of its runtime",
        "keras": OTHER_FORMATS,
        "optimize": OTHER_FORMATS,
        "per_tensor": OTHER_FORMATS,
        "mlmodel": OTHER_FORMATS,
        "workspace": OTHER_FORMATS,
        "topk_per_class": "--max-det is of a picture",
        "agnostic_nms": "suppression inside the file (--nms) is class by class; without --nms the program decides",
    },
}


def as_ours(argv: list[str], script: str) -> tuple[list[str], list[str]]:
    """The command line in our words, and notes; UserError saying what to do where there is no such option."""
    ours, notes, words = [], [], list(argv)
    while words:
        token = words.pop(0)
        word, equals, text = token.removeprefix("--").partition("=")
        key = word.replace("-", "_")
        if not (token.startswith("--") or (equals and key.isidentifier())):
            ours.append(token)
            continue
        if key in FREE:
            follows = words and not equals and not words[0].startswith("--")
            ours += [token, *([words.pop(0)] if follows else [])]
            continue
        off = (text or (words[0] if words else "")).lower() in FALSE
        why = INSTEAD[script].get(key) if key != "task" or (text or "".join(words[:1])) in ("speed", "study") else None
        if key in ANYWAY[script] or (why and off):
            _drop_value(key, bool(equals), words)
            notes += [] if why else [f"'{word}' is not needed: {ANYWAY[script][key]}"]
        elif why:
            said = f"{word} {text or words[0]}" if key == "task" else word
            raise UserError(f"there is no '{said}' here: {why}.")
        elif key in LISTS and not equals:
            ours += [token, *_as_one(word, words)]
        elif key in OURS[script]:
            name, value = OURS[script][key], f"={text}" if equals else ""
            if key in INVERSE:
                _drop_value(key, bool(equals), words)
                value = f"={str(off).lower()}"
            ours.append(f"--{name}{value}")
            notes.append(f"'{word}' is today {name}{value}")
        else:
            ours.append(token)
    return ours, notes


def _drop_value(key: str, has_value: bool, words: list[str]) -> None:
    """Take the value of an option that is left out from `words`."""
    if not has_value and words and not words[0].startswith("--"):
        if key in VALUED or words[0].lower() in FALSE | {"true", "1"}:
            words.pop(0)


def _as_one(word: str, words: list[str]) -> list[str]:
    """The values behind `--imgsz` or `--classes`, taken from `words`, as one value."""
    values = []
    while words and (
        words[0].isdecimal() or (word == "classes" and not words[0].startswith("--") and "=" not in words[0])
    ):
        values.append(words.pop(0))
    if len(values) < 2:
        return values
    if word == "classes":
        return [",".join(values)]
    if len(set(values)) > 1:
        raise UserError(
            f"--{word} {' '.join(values)}: imgsz is one number, the longest side; pictures keep their shape and are "
            f"padded. Name {max(values, key=int)}."
        )
    return values[:1]
