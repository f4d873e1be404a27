"""What a longer run takes over from the folder of a shorter one, so that its own tells of the whole run."""

from collections.abc import Iterator
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event

from utils.run.log import end_before, read_metrics, write_metrics
from utils.run.state.stable import take_over, told


def carry(old: Path, new: Path, ni: int, epoch: int) -> None:
    """Rows of metrics.csv, scalars of TensorBoard and weights of a run before batch `ni`, after so many epochs."""
    rows = [row for row in read_metrics(old / "metrics.csv") if row["epoch"] <= epoch]
    with told(new):
        if rows:
            write_metrics(new / "metrics.csv", rows)
        for file in sorted(old.glob("events.out.tfevents.*")):
            content = b"".join(scalars(file, end_before(file, ni, epoch)))
            if content:
                (new / file.name).write_bytes(content)
    take_over(old / "weights", new / "weights", epoch)


def scalars(path: Path, end: int) -> Iterator[bytes]:
    """The records of an event file within its first `end` bytes, but for texts and pictures, of which a run has new."""
    with open(path, "rb") as file:
        while file.tell() < end:
            header = file.read(12)  # length, its checksum; then the event and its checksum
            record = file.read(int.from_bytes(header[:8], "little") + 4)
            values = Event.FromString(record[:-4]).summary.value
            if all(value.HasField("simple_value") for value in values):
                yield header + record
