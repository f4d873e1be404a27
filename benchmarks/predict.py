"""detect.py against ultralytics' predict: the same weights, pictures, size, batch and threads, in turns, A B A B.

    python benchmarks/predict.py --weights yolov8n.pt --data coco128.yaml

On the pictures of val, without their labels, at score 0.25 and IoU 0.7, from the files of weights and pictures to
detections, with pictures drawn and without; imports are not counted. Ratios are ultralytics' seconds divided by ours,
above 1 is faster here.
"""

import argparse
import logging
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.turns import Contender, head, machine, quiet, take_turns  # isort: skip  (sets the environment)

import torch
from ultralytics import YOLO

import detect
from data.definition.dataset_yaml import load_dataset_yaml


class Ours:
    """detect.py, from the command line to predictions.json."""

    def __init__(self, args: argparse.Namespace, scratch: str, draws: bool):
        quiet(args.threads)
        logging.disable()
        places = {"--weights": args.weights, "--source": load_dataset_yaml(args.data).val[0], "--project": scratch}
        places |= {"--imgsz": args.imgsz, "--batch": args.batch, "--device": args.device, "--workers": args.workers}
        self.words = [str(word) for place in places.items() for word in place]
        self.words += ["--name", "ours", "--exist-ok", *([] if draws else ["--nosave"])]
        self.pictures = self.boxes = 0

    def __call__(self) -> None:
        counts = detect.main(self.words)
        self.pictures, self.boxes = counts["pictures"], counts["boxes"]

    def found(self) -> tuple[int, int]:
        """Pictures and boxes of the last round."""
        return self.pictures, self.boxes


class Theirs:
    """ultralytics' model.predict, from its weights on, as a command line has it."""

    def __init__(self, args: argparse.Namespace, scratch: str, draws: bool):
        quiet(args.threads)
        self.weights, self.source = args.weights, str(load_dataset_yaml(args.data).val[0])
        self.told = {"imgsz": args.imgsz, "batch": args.batch, "device": args.device, "save": draws, "verbose": False}
        self.told |= {"project": scratch, "name": "theirs", "exist_ok": True, "stream": True, "conf": 0.25, "iou": 0.7}
        self.pictures = self.boxes = 0

    def __call__(self) -> None:
        results = YOLO(self.weights).predict(self.source, **self.told)
        counts = [len(result.boxes) for result in results]
        self.pictures, self.boxes = len(counts), sum(counts)

    def found(self) -> tuple[int, int]:
        """Pictures and boxes of the last round."""
        return self.pictures, self.boxes


def compare(args: argparse.Namespace, draws: bool) -> None:
    """The rows with pictures drawn, or without."""
    with tempfile.TemporaryDirectory() as scratch:
        how = "drawn" if draws else "not drawn"
        peer = Contender(f"ultralytics, {how}", Theirs, args, scratch, draws)
        ours = Contender(f"preheat, {how}", Ours, args, scratch, draws)
        take_turns([peer, ours], args.rounds)
        for contender in (peer, ours):
            pictures, boxes = contender.ask("found")
            print(contender.row(peer, f"{pictures / contender.median('wall'):.1f}", str(boxes)), flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True, help="dataset yaml whose val is a folder")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1, help="threads that read, and that write, of ours")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"{machine(args)}; imgsz {args.imgsz}, batch {args.batch}, medians of {args.rounds} rounds in turns\n")
    print(head("detection", "pictures/s", "boxes"))
    for draws in (False, True):
        compare(args, draws)


if __name__ == "__main__":
    main()
