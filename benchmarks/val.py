"""Evaluation against ultralytics' val: the same weights, pictures, size, batch and threads, in turns, A B A B.

    python benchmarks/val.py --weights yolov8n.pt --data coco128.yaml

Both have the network in memory; the clock runs from the dataset yaml to the scores, with labels and headers known from
a pass that is not counted. ultralytics has no bf16 on a CPU: there bf16 is set against its fp32, on a GPU against its
fp16. Ratios are its seconds divided by ours, above 1 is faster here.

Both sets of predictions, made outside the clock, are scored by both definitions of AP: COCO's, and that of ultralytics,
which takes precision as linear between two detections. A last row has its detections in the batches of ours: pictures
of one aspect come in any order there (an unstable sort), and the batch decides how a picture is padded.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.turns import COLUMNS, Contender, copy_dataset, head, machine, quiet, take_turns  # isort: skip  (sets the environment)

import numpy as np
import torch
from ultralytics import YOLO
from ultralytics.data.base import BaseDataset
from ultralytics.engine.validator import BaseValidator
from ultralytics.utils.metrics import ap_per_class, box_iou

from data.definition.dataset_yaml import load_dataset_yaml
from data.index.index import build_index
from data.loading.loader import build_eval_loader
from models.detector import for_evaluation, load_for_eval
from utils.device.ranks import DTYPES, open_device
from utils.evaluation.coco import coco_scores
from utils.evaluation.evaluate import Evaluation, Settings, evaluate
from utils.evaluation.truth import truth_of


class Ours:
    """Evaluation as val.py makes it."""

    def __init__(self, args: argparse.Namespace, amp: str):
        self.args, self.amp, self.device = args, amp, torch.device(args.device)
        quiet(args.threads)
        open_device(self.device)
        self.model = load_for_eval(args.weights).to(self.device, memory_format=torch.channels_last)
        self.found: Evaluation | None = None

    def __call__(self) -> None:
        args = self.args
        index = build_index(load_dataset_yaml(args.data), "val")
        sizes = {"imgsz": args.imgsz, "stride": int(self.model.stride.max()), "batch": args.batch}
        loader = build_eval_loader(index, **sizes, workers=args.workers, pin=self.device.type == "cuda")
        settings = Settings(dtype=DTYPES[self.amp], channels_last=True)
        with for_evaluation(self.model) as model:
            self.found = evaluate(model, loader, index, self.device, settings)

    def predictions(self) -> list[dict[str, Any]]:
        """Of the last pass, as COCO results."""
        return self.found.predictions


class Theirs:
    """ultralytics' model.val, without plots."""

    def __init__(self, args: argparse.Namespace, amp: str, scratch: str):
        quiet(args.threads)
        self.yolo, self.args = YOLO(args.weights), args
        config = load_dataset_yaml(args.data)
        self.told = {
            "data": str(copy_dataset(Path(scratch), config.names, {"val": config.val[0]})), "imgsz": args.imgsz,
            "batch": args.batch, "workers": args.workers, "device": args.device, "plots": False, "verbose": False,
            "half": amp != "off" and args.device != "cpu", "project": scratch, "name": "val", "exist_ok": True,
        }  # fmt: skip

    def __call__(self, **more: Any) -> None:
        self.yolo.val(**self.told, **more)

    def predictions(self) -> list[dict[str, Any]]:
        """Of one more pass, as COCO results, with the ids of our index."""
        self(save_json=True)
        rows = json.loads((Path(self.told["project"]) / "val/predictions.json").read_text())
        index = build_index(load_dataset_yaml(self.args.data), "val")
        ids = {Path(path).name: int(image_id) for path, image_id in zip(index.paths, index.image_ids, strict=True)}
        categories = [int(c) for c in index.category_ids]
        return [
            row | {"image_id": ids[row["file_name"]], "category_id": categories[row["category_id"] - 1]} for row in rows
        ]

    def predictions_in_our_batches(self) -> list[dict[str, Any]]:
        """Of a pass in which pictures of one aspect keep their order, as here."""
        set_rectangle = BaseDataset.set_rectangle

        def set_stably(dataset: Any) -> None:
            shapes = np.array([label["shape"] for label in dataset.labels])
            files, labels = dataset.im_files, dataset.labels
            set_rectangle(dataset)
            order = (shapes[:, 0] / shapes[:, 1]).argsort(kind="stable")
            dataset.im_files, dataset.labels = [files[i] for i in order], [labels[i] for i in order]

        BaseDataset.set_rectangle = set_stably
        try:
            return self.predictions()
        finally:
            BaseDataset.set_rectangle = set_rectangle


def their_ap(index: Any, results: list[dict[str, Any]]) -> np.ndarray:
    """AP (classes with boxes, 10) of COCO results as ultralytics matches and averages; crowds are no truth."""
    ious = SimpleNamespace(iouv=torch.linspace(0.5, 0.95, 10))
    category = {int(c): k for k, c in enumerate(index.category_ids)}
    found: dict[int, list[list[float]]] = {int(i): [] for i in index.image_ids}
    for r in results:
        x, y, w, h = r["bbox"]
        found[r["image_id"]].append([x, y, x + w, y + h, r["score"], category[r["category_id"]]])
    hits, rows, classes = [], [], []
    for picture, detections in enumerate(found.values()):
        boxes, cls, crowd, _ = truth_of(index, picture)
        mine = torch.tensor(detections).reshape(-1, 6)
        mine = mine[mine[:, 4].argsort(descending=True, stable=True)]
        iou = box_iou(torch.from_numpy(boxes[~crowd]).float(), mine[:, :4])
        truth = torch.from_numpy(cls[~crowd].astype(np.int64))
        hits.append(BaseValidator.match_predictions(ious, mine[:, 5], truth, iou).numpy())
        rows.append(mine.numpy())
        classes.append(truth.numpy())
    rows = np.concatenate(rows)
    return ap_per_class(np.concatenate(hits), rows[:, 4], rows[:, 5], np.concatenate(classes))[5]


def scores(index: Any, results: list[dict[str, Any]]) -> list[str]:
    """mAP50-95 and mAP50 by COCO's definition and by that of ultralytics."""
    coco, theirs = coco_scores(index, results).metrics, their_ap(index, results)
    figures = (coco["val/mAP50-95"], coco["val/mAP50"], theirs.mean(), theirs[:, 0].mean())
    return [f"{figure:.5f}" for figure in figures]


def compare(args: argparse.Namespace, amp: str) -> None:
    """The rows of one precision."""
    theirs = "off" if args.device == "cpu" else amp.replace("bf16", "fp16")
    with tempfile.TemporaryDirectory() as scratch:
        peer = Contender(f"ultralytics, amp {theirs}", Theirs, args, amp, scratch)
        ours = Contender(f"preheat, amp {amp}", Ours, args, amp)
        take_turns([peer, ours], args.rounds)
        index = build_index(load_dataset_yaml(args.data), "val")
        for contender in (peer, ours):
            print(contender.row(peer, *scores(index, contender.ask("predictions"))), flush=True)
        cells = [
            f"{peer.name}, in our batches",
            *[""] * len(COLUMNS),
            *scores(index, peer.ask("predictions_in_our_batches")),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True, help="dataset yaml whose val is a folder images/...")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=0, help="of our loader; ultralytics takes none on a CPU")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--amp", nargs="+", choices=list(DTYPES), default=["off", "bf16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"{machine(args)}; imgsz {args.imgsz}, batch {args.batch}, medians of {args.rounds} rounds in turns\n")
    print(head("evaluation", *(f"{name}, {by}" for by in ("COCO", "ultralytics") for name in ("mAP50-95", "mAP50"))))
    for amp in args.amp:
        compare(args, amp)


if __name__ == "__main__":
    main()
