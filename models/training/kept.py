"""Checkpoints that a run keeps beside best.pt, the k best or one a cycle of its schedule, and their ensemble."""

import copy
import logging
import shlex
from dataclasses import replace
from pathlib import Path

from torch import nn

from models.detector import load_for_eval
from models.inference.combined.ensemble import Ensemble
from models.weights.save import save_weights
from utils.config.schema import Hyp
from utils.evaluation.evaluate import Validation
from utils.run.state.progress import Progress, judged
from utils.schedule.curves import value_at
from utils.schedule.rates import Schedule

log = logging.getLogger(__name__)


def keep_epoch(
    folder: Path | None,
    model: nn.Module,
    hyp: Hyp,
    progress: Progress,
    row: dict[str, float],
    schedule: Schedule,
    over: bool,
) -> None:
    """Remember the epoch just finished where it is one of the best, or ends a cycle; and write it into `folder`.

    folder: weights/ of the run; None on ranks that write nothing, and remember the same. row: its losses, and scores
    where it was evaluated.
    """
    wanted, metrics = [], {name: value for name, value in row.items() if name.startswith("val/")}
    if hyp.keep_best > 1 and metrics and progress.epoch > hyp.patience_from:
        is_kept, gone = progress.keep(judged(metrics, hyp.best_metric), hyp.keep_best)
        wanted += ["best"] if is_kept else []
        if folder and gone:
            file_of(folder, "best", gone).unlink(missing_ok=True)
    if hyp.snapshots and (over or ends_cycle(schedule, progress.ni)):
        progress.snapshots.append(progress.epoch)
        wanted.append("snapshot")
    for kind in wanted if folder else []:
        path = file_of(folder, kind, progress.epoch)
        save_weights(path, model, list(model.names.values()), hyp.model_dump(), progress.epoch, metrics)


def file_of(folder: Path, kind: str, epoch: int) -> Path:
    """The file of an epoch that is kept as best or snapshot."""
    return folder / f"{kind}-epoch{epoch}.pt"


def ends_cycle(schedule: Schedule, ni: int) -> bool:
    """Whether the learning rate jumps up at batch `ni` or in the epoch that begins there: the last chance before."""
    curve = schedule.lr.get("weight") or next(iter(schedule.lr.values()))
    rates = [value_at(k, curve) for k in range(ni - 1, ni + schedule.nb)]
    return ni > schedule.nw and any(after > before for before, after in zip(rates, rates[1:], strict=False))


def score_kept(
    folder: Path, model: nn.Module, progress: Progress, val: Validation, writes: bool, best: float
) -> dict[str, float]:
    """Scores of the ensembles of what was kept, also printed; all ranks work on them, and rank 0 has read the files."""
    scores, val = {}, replace(val, criterion=None, also=None)
    for kind, epochs in (("best", sorted(epoch for _, epoch in progress.kept)), ("snapshot", progress.snapshots)):
        if len(epochs) < 2:
            continue
        files = [str(file_of(folder, kind, epoch)) for epoch in epochs]
        members = [load_for_eval(file) if writes else copy.deepcopy(model) for file in files]
        both = Ensemble(members, files).to(val.device, memory_format=val.settings.layout)
        found = val.score(both).metrics
        scores |= {f"{kind}-ensemble/{name}": found[f"val/{name}"] for name in ("mAP50-95", "mAP50")}
        what = "best epochs" if kind == "best" else "snapshots"
        log.info(
            f"ensemble of {len(epochs)} {what} ({', '.join(map(str, epochs))}): mAP50-95 {found['val/mAP50-95']:.4f}  "
            f"mAP50 {found['val/mAP50']:.4f}; best.pt alone {best:.4f}. Use it: --weights {shlex.join(files)}"
        )
    return scores
