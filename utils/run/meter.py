"""What an epoch adds up to: losses, gradient norms, speed and the time spent waiting for data."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from utils.run.console import weight_rates
from utils.run.state.sound import require_same

CHECK_EVERY = 10  # batches between two looks at the device on a GPU; each one waits for it
GIVE_UP = 20  # skipped steps in a row, after which a run has diverged
SUMS = ("sums", "finite", "lost", "skipped", "in_row")  # what a Meter keeps on the device, beside the norms
LOADER_BOUND = 0.15  # share of an epoch spent waiting for batches from which on the loader is what holds it up


def bound_by(wait: float) -> str:
    """What a run is held up by, given the share of the time that it waits for batches."""
    return "loader-bound" if wait > LOADER_BOUND else "step-bound"


def looks(device: torch.device, batch: int) -> bool:
    """Whether what stands on the device is looked at after a batch: on a GPU that waits for it."""
    return device.type == "cpu" or batch % CHECK_EVERY == 0


class Meter:
    """Sums of one epoch; losses stay on the device until somebody asks. A loss that is not finite is in no sum."""

    def __init__(
        self, device: torch.device, names: tuple[str, ...], bar: Iterable | None = None, in_row: int = 0
    ) -> None:
        """in_row: steps skipped in a row before this epoch."""
        self.device, self.names = device, names
        self.bar = bar if isinstance(bar, tqdm) else None
        self.sums = torch.zeros(len(names), device=device)  # (3,) box, cls, dfl, added over batches
        self.items = self.sums
        self.norm: Tensor | None = None  # gradient norm of the step that this batch closed, if it did
        self.norms: list[Tensor] = []
        zero = torch.zeros((), dtype=torch.int64, device=device)
        self.finite = self.lost = self.skipped = zero  # batches of finite loss; others in a row up to now; steps
        self.in_row = zero + in_row  # steps skipped since the last one taken
        self.first = [zero - 1, zero - 1]  # batch at which the lost losses, and the skipped steps, of now began; or -1
        self.batches = self.pictures = 0
        self.waited, self.began = 0.0, time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """What the batches so far have added up to; tensors stay on their device."""
        counts = {"batches": self.batches, "pictures": self.pictures, "waited": self.waited, "seconds": self.seconds}
        sums = {key: getattr(self, key) for key in SUMS}
        return counts | sums | {"norms": torch.stack(self.norms) if self.norms else torch.zeros(0)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on inside an epoch from what `state_dict` gave; UserError where that is something else."""
        fresh = self.state_dict() | {"norms": torch.zeros(len(state.get("norms", ())))}
        require_same(state, fresh, "meter")
        for key in ("batches", "pictures", "waited"):
            setattr(self, key, state[key])
        for key in SUMS:
            setattr(self, key, state[key].to(self.device))
        self.norms = list(state["norms"].to(self.device).unbind())
        self.began = time.perf_counter() - state["seconds"]

    @property
    def seconds(self) -> float:
        """Time that the epoch has taken so far."""
        return time.perf_counter() - self.began

    def is_sound(self) -> bool:
        """Whether the loss of the last batch and the last gradient were numbers; on a GPU this waits for it."""
        return not int(self.lost) and not int(self.in_row)

    def waiting(self, batches: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The batches, with the time until each one came added to `waited`."""
        since = time.perf_counter()
        for batch in batches:
            self.waited += time.perf_counter() - since
            yield batch
            since = time.perf_counter()

    def add(self, items: Tensor, pictures: int) -> None:
        """Count a batch: its losses (3,), each the mean over its pictures."""
        self.items, self.norm = items.detach(), None
        finite = self.items.isfinite().all()
        self.sums = self.sums + torch.where(finite, self.items, 0.0)
        self.finite = self.finite + finite
        self.lost = torch.where(finite, 0, self.lost + 1)
        self._began_at(0, finite)
        self.batches += 1
        self.pictures += pictures

    def step(self, norm: Tensor) -> None:
        """Count an optimizer step: the norm of its summed gradient before clipping; not finite: it was skipped."""
        self.norm = norm
        self.norms.append(norm)
        taken = norm.isfinite()
        self.skipped = self.skipped + ~taken
        self.in_row = torch.where(taken, 0, self.in_row + 1)
        self._began_at(1, taken, 1)

    def _began_at(self, which: int, well: Tensor, back: int = 0) -> None:
        """Remember where a row of batches that are not well began; back: how many of those counted are not before."""
        here = torch.where(self.first[which] < 0, self.batches - back, self.first[which])
        self.first[which] = torch.where(well, -1, here)

    def lost_from(self) -> int | None:
        """The batch of this epoch, from 0, that what is lost now is lost from: its losses, or else its gradients."""
        found = [int(first) for first in self.first if int(first) >= 0]
        return found[0] if found else None

    def latest(self) -> dict[str, Tensor]:
        """Losses of this batch, and its gradient norm where it ended a window, as 0-dim tensors."""
        values = {f"train/{name}": item for name, item in zip(self.names, self.items, strict=True)}
        return values if self.norm is None else values | {"train/grad_norm": self.norm}

    def hopeless(self, ni: int) -> bool:
        """Whether GIVE_UP steps in a row were skipped; on a GPU looked at now and then."""
        return looks(self.device, ni) and int(self.in_row) >= GIVE_UP

    def ends_lost(self) -> bool:
        """Whether the epoch ended on losses that are not finite; one of them alone, after others, is an accident."""
        return 0 < min(2, self.batches) <= int(self.lost)

    def show(self, rates: dict[str, float]) -> None:
        """Bring the progress bar up to date."""
        if self.bar is not None and looks(self.device, self.batches):
            losses = " ".join(
                f"{n} {v:.3f}" for n, v in zip(self.names, (self.sums / self.finite).tolist(), strict=True)
            )
            seconds = self.seconds
            self.bar.set_postfix_str(
                f"{losses} lr {weight_rates(rates)} {self.pictures / seconds:.0f} img/s "
                f"data {self.waited / seconds:.0%}",
                refresh=False,
            )

    def means(self, clip_norm: float | None) -> dict[str, float]:
        """Means of the epoch under the names of metrics.csv; seconds an epoch and a batch, share of time waiting."""
        seconds = self.seconds
        values = (self.sums / self.finite.clamp(min=1)).tolist()
        means = {f"train/{name}": value for name, value in zip(self.names, values, strict=True)}
        norms = torch.stack(self.norms).float() if self.norms else torch.zeros(0)
        finite = norms[norms.isfinite()]  # that of a step that was skipped is not
        if len(finite):
            means["train/grad_norm"] = finite.mean().item()
            means["train/clip_rate"] = (finite > (clip_norm or float("inf"))).float().mean().item()
        return means | {
            "train/skipped": int(self.skipped),
            "time/epoch": seconds,
            "time/step": seconds / max(self.batches, 1),
            "time/data": self.waited / seconds,
            "time/images_per_s": self.pictures / seconds,
        }
