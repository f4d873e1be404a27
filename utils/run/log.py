"""The run folder: console, metrics.csv and TensorBoard under one set of names; only rank 0 writes."""

import csv
import io
import logging
import os
from pathlib import Path
from typing import Any

import torch
from tensorboard.compat.proto.event_pb2 import Event
from torch.utils.tensorboard import SummaryWriter

from utils.files import write_whole
from utils.run.folder import hold_folder

log = logging.getLogger(__name__)
FLUSH_EVERY = 10  # batches between two transfers of losses from the device


class RunLog:
    """metrics.csv and TensorBoard of one run, whose folder is held for this process alone until `close`.

    Scalars of a batch may live on the device until they are written.
    """

    def __init__(self, folder: Path, start_epoch: int = 0, start_ni: int = 0, resumed: bool = False) -> None:
        self.folder, self.csv_path = folder, folder / "metrics.csv"
        self.let_go = hold_folder(folder)
        self.rows = [row for row in read_metrics(self.csv_path) if row["epoch"] <= start_epoch] if resumed else []
        if resumed:
            cut_events(folder, start_ni)
        self.writer = SummaryWriter(str(folder))
        self.pending: list[tuple[str, int, torch.Tensor]] = []
        self.over_batches: set[str] = set()  # tags whose x axis is ni

    def batch(self, ni: int, values: dict[str, float], tensors: dict[str, torch.Tensor]) -> None:
        """Scalars of batch `ni`: plain values at once, 0-dim tensors at the next flush (one device sync for all)."""
        for tag, value in values.items():
            self.writer.add_scalar(tag, value, ni)
        self.pending += [(tag, ni, tensor.detach()) for tag, tensor in tensors.items()]
        self.over_batches |= values.keys() | tensors.keys()
        if ni % FLUSH_EVERY == FLUSH_EVERY - 1:
            self.flush()

    def flush(self) -> None:
        """Write the scalars that wait on the device."""
        if self.pending:
            values = torch.stack([t.float() for _, _, t in self.pending]).tolist()
            for (tag, ni, _), value in zip(self.pending, values, strict=True):
                self.writer.add_scalar(tag, value, ni)
            self.pending.clear()

    def epoch(self, epoch: int, ni: int, values: dict[str, float]) -> None:
        """One row of metrics.csv, and the metrics in TensorBoard over epochs; epoch 0 is before the first batch."""
        self.flush()
        self.rows.append({"epoch": epoch, "ni": ni, **values})
        for tag, value in values.items():
            if tag not in self.over_batches:
                self.writer.add_scalar(tag, value, epoch)
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, columns)
        table.writeheader()
        table.writerows(self.rows)
        write_whole(self.csv_path, text.getvalue().encode())
        self.writer.flush()

    def classes(self, rows: list[dict[str, Any]]) -> None:
        """per_class.csv: a row for each class, of the evaluation that the run ends with; no score: an empty cell."""
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, list(rows[0]))
        table.writeheader()
        table.writerows([{k: "" if v != v else v for k, v in row.items()} for row in rows])
        write_whole(self.folder / "per_class.csv", text.getvalue().encode())

    def picture(self, tag: str, image: Any, step: int) -> None:
        """An (h, w, 3) uint8 picture in TensorBoard."""
        self.writer.add_image(tag, image, step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close the event file, and let others into the folder."""
        self.flush()
        self.writer.close()
        self.let_go()


def cut_events(folder: Path, ni: int) -> None:
    """Cut off a run's event files what was written from batch `ni` on, of every tag, which a resumed run writes again.

    TensorBoard's own purge goes by one step for all tags, and those of epochs count otherwise than those of batches.
    """
    files = sorted(folder.glob("events.out.tfevents.*"), key=_written)
    for k, file in enumerate(files):
        end, found = end_before(file, ni)
        os.truncate(file, end)  # also where a kill tore the last record
        if found:
            for later in files[k + 1 :]:
                later.unlink()
            return


def _written(file: Path) -> list[int]:
    """Second and number of events.out.tfevents.SECOND.host.pid.NUMBER: the order in which they were written."""
    words = file.name.split(".")
    return [int(word) if word.isdigit() else 0 for word in (words[3], words[-1])]


def end_before(path: Path, ni: int) -> tuple[int, bool]:
    """Bytes of an event file up to what batch `ni` or a later one wrote first, and whether there is such a one.

    At most up to a record that is not whole.
    """
    with open(path, "rb") as file:
        size, end = path.stat().st_size, 0
        while len(header := file.read(12)) == 12:  # length, its checksum; then the event and its checksum
            length = int.from_bytes(header[:8], "little")
            if end + length + 16 > size:
                return end, False
            record = file.read(length + 4)[:length]
            if b"lr/" in record:  # what a batch writes first
                event = Event.FromString(record)
                if event.step >= ni and any(value.tag.startswith("lr/") for value in event.summary.value):
                    return end, True
            end += length + 16
    return end, False


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
