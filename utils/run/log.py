"""The run folder: console, metrics.csv and TensorBoard under one set of names; only rank 0 writes."""

import contextlib
import csv
import io
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from utils.errors import UserError
from utils.files import write_whole
from utils.run.folder import hold_folder

log = logging.getLogger(__name__)
OF_EPOCH = "time/epoch"  # what the row of an epoch writes first
FLUSH_EVERY = 10  # batches between two transfers of losses from the device


class RunLog:
    """metrics.csv and TensorBoard of one run, whose folder is held for this process alone until `close`.

    Scalars of a batch may live on the device until they are written.
    """

    def __init__(
        self, folder: Path, start_epoch: int = 0, start_ni: int = 0, resumed: bool = False, mirror: Any = None
    ) -> None:
        """mirror: an open run of Weights & Biases that is told every scalar, too."""
        self.mirror = mirror
        self.folder, self.csv_path = folder, folder / "metrics.csv"
        self.let_go = hold_folder(folder)
        self.rows = [row for row in read_metrics(self.csv_path) if row["epoch"] <= start_epoch] if resumed else []
        if resumed:
            cut_events(folder, start_ni, start_epoch)
            date_back(folder)
        self.writer = SummaryWriter(str(folder))
        self.pending: list[tuple[str, int, torch.Tensor]] = []
        self.axes: dict[str, str] = {}  # of the mirror's tags

    def begin(self, hyp: Mapping[str, Any]) -> None:
        """The resolved hyp as text, and the plan as a picture where it was drawn; of a new run only."""
        text = yaml.safe_dump(dict(hyp), sort_keys=False, allow_unicode=True)
        self.writer.add_text("hyp", f"```yaml\n{text}```", 0)
        plan = self.folder / "plan.png"
        if plan.is_file():
            self.picture("plan", plan, 0)

    def result(self, hyp: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """What TensorBoard's HParams tab shows of this run: plain values of the hyp, and the final metrics.

        It stands in the run's own event file: the tab compares the runs of a folder.
        """
        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in hyp.items()}
        for summary in hparams(
            plain, {tag: v for tag, v in metrics.items() if tag.startswith(("val/", "also/", "best/"))}
        ):
            self.writer.file_writer.add_summary(summary)
        if self.mirror:
            self.mirror.summary.update(dict(metrics))

    def batch(self, ni: int, values: dict[str, float], tensors: dict[str, torch.Tensor]) -> None:
        """Scalars of batch `ni`: plain values at once, 0-dim tensors at the next flush (one device sync for all)."""
        for tag, value in values.items():
            self.writer.add_scalar(tag, value, ni)
        self._tell("ni", ni, values)
        self.pending += [(tag, ni, tensor.detach()) for tag, tensor in tensors.items()]
        if ni % FLUSH_EVERY == FLUSH_EVERY - 1:
            self.flush()

    def flush(self, to_disk: bool = False) -> None:
        """Write the scalars that wait on the device; to_disk: and all that waits in this process."""
        if self.pending:
            values = torch.stack([t.float() for _, _, t in self.pending]).tolist()
            for (tag, ni, _), value in zip(self.pending, values, strict=True):
                self.writer.add_scalar(tag, value, ni)
                self._tell("ni", ni, {tag: value})
            self.pending.clear()
        if to_disk:
            self.writer.flush()

    def _tell(self, axis: str, at: int, values: Mapping[str, float]) -> None:
        """The same to the mirror; each tag has the axis that it has in TensorBoard."""
        if self.mirror:
            for tag in values.keys() - self.axes.keys():
                self.mirror.define_metric(tag, step_metric=axis)
                self.axes[tag] = axis
            self.mirror.log({axis: at, **values})

    def epoch(self, epoch: int, ni: int, values: dict[str, float]) -> None:
        """One row of metrics.csv, and the metrics in TensorBoard over epochs; epoch 0 is before the first batch."""
        self.flush()
        self.rows.append({"epoch": epoch, "ni": ni, **values})
        shown = {tag: values[tag] for tag in sorted(values, key=lambda tag: tag != OF_EPOCH) if not over_batches(tag)}
        for tag, value in shown.items():
            self.writer.add_scalar(tag, value, epoch)
        self._tell("epoch", epoch, shown)
        write_metrics(self.csv_path, self.rows)
        self.writer.flush()

    def classes(self, rows: list[dict[str, Any]]) -> None:
        """per_class.csv: a row for each class, of the evaluation that the run ends with; no score: an empty cell."""
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, list(rows[0]))
        table.writeheader()
        table.writerows([{k: "" if v != v else v for k, v in row.items()} for row in rows])
        write_whole(self.folder / "per_class.csv", text.getvalue().encode())

    def picture(self, tag: str, file: Path, step: int) -> None:
        """A PNG or JPEG file in TensorBoard, as it is: to decode it and encode it again costs a second."""
        with Image.open(file) as opened:
            (width, height), colours = opened.size, len(opened.getbands())
        image = Summary.Image(width=width, height=height, colorspace=colours, encoded_image_string=file.read_bytes())
        self.writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    def close(self) -> None:
        """Flush and close the event file, and let others into the folder."""
        try:
            self.flush()
            self.writer.close()
            if self.mirror:
                self.mirror.finish()
        finally:
            self.let_go()


def over_batches(tag: str) -> bool:
    """Whether the x axis of a tag is ni; the rows of epochs hold such means too, which are not drawn again."""
    return tag.startswith(("lr/", "train/", "momentum", "accumulate")) and tag not in (
        "train/skipped",
        "train/clip_rate",
    )


def open_wandb(folder: Path, hyp: Mapping[str, Any]) -> Any:
    """A run of Weights & Biases, project preheat, named after the run folder; UserError when it is not installed.

    Whether it uses the network is its own setting: WANDB_MODE=offline keeps it all in the run folder.
    """
    try:
        import wandb
    except ImportError as e:
        raise UserError("--wandb needs wandb, which is not installed: pip install -r requirements-extra.txt") from e
    return wandb.init(project="preheat", name=folder.name, dir=str(folder), config=dict(hyp), save_code=False)


def cut_events(folder: Path, ni: int, epoch: int) -> None:
    """Cut off a run's event files what a run resumed before batch `ni`, after so many epochs, writes again.

    TensorBoard's own purge goes by one step for all tags, and those of epochs count otherwise than those of batches.
    Each file is cut for itself: what their names say of time is worth nothing where the clock has been set back.
    """
    for file in folder.glob("events.out.tfevents.*"):
        end = end_before(file, ni, epoch)
        if end < file.stat().st_size:
            os.truncate(file, end)  # also where a kill tore the last record


def end_before(path: Path, ni: int, epoch: int) -> int:
    """Bytes of an event file up to what batch `ni`, or the epoch after `epoch`, or a later one wrote first.

    At most up to a record that is not whole.
    """
    with open(path, "rb") as file:
        size, end = path.stat().st_size, 0
        while len(header := file.read(12)) == 12:  # length, its checksum; then the event and its checksum
            length = int.from_bytes(header[:8], "little")
            if end + length + 16 > size:
                return end
            record = file.read(length + 4)[:length]
            if b"lr/" in record or OF_EPOCH.encode() in record:  # what a batch and an epoch write first
                event = Event.FromString(record)
                tags = [value.tag for value in event.summary.value]
                of_batch, of_epoch = any(tag.startswith("lr/") for tag in tags), OF_EPOCH in tags
                if (of_batch and event.step >= ni) or (of_epoch and event.step > epoch):
                    return end
            end += length + 16
    return end


def date_back(folder: Path) -> None:
    """Rename the event files of a folder, all by as many seconds, until one that is begun now sorts behind them.

    TensorBoard reads them in the order of the seconds in their names, and its curves run backwards where that is not
    the order in which they were begun: after a resume within a second, or with a clock that has been set back.
    """
    names = {file: file.name.split(".") for file in sorted(folder.glob("events.out.tfevents.*"))}
    names = {file: name for file, name in names.items() if name[3].isdigit()}
    late = max((int(name[3]) for name in names.values()), default=0) + 1 - int(time.time())
    for file, name in names.items() if late > 0 else ():  # the earliest first: none takes the name of another
        with contextlib.suppress(PermissionError):  # held by a reader, on Windows
            file.rename(file.with_name(".".join([*name[:3], f"{int(name[3]) - late:010d}", *name[4:]])))


def write_metrics(path: Path, rows: list[dict[str, float]]) -> None:
    """A metrics.csv with a row for each epoch; what an epoch lacks is an empty cell."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
    table.writeheader()
    table.writerows(rows)
    write_whole(path, text.getvalue().encode())


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Rows of a metrics.csv as numbers; empty cells are left out; no file, no rows."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items() if v not in ("", None)} for row in csv.DictReader(file)]


def read_scalars(folder: Path, prefixes: tuple[str, ...], most: int = 5000) -> dict[str, list[float]]:
    """Scalars of a run's event files over `ni`: {"ni": [...], tag: [...]}, `most` points of each at most (0: all)."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={SCALARS: most})
    events.Reload()
    tags = [tag for tag in events.Tags()[SCALARS] if tag.startswith(prefixes)]
    points = {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in tags}
    steps = sorted(set.intersection(*(set(p) for p in points.values()))) if points else []
    return {"ni": steps, **{tag: [points[tag][s] for s in steps] for tag in tags}} if steps else {}
