"""--plan: what one or several runs would do, said and drawn without a model; and the same for a run that starts."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.config.options import parse_args
from utils.config.recipes import auto_optimizer
from utils.config.schema import Command, Hyp
from utils.config.words import is_option
from utils.env import weight_places
from utils.errors import UserError
from utils.run.console import configure_console
from utils.schedule.describe import describe, table
from utils.schedule.draw import Drawn, plot_plan
from utils.schedule.extend import extend_lines, extension_of_yaml
from utils.schedule.past import Alike, stable_part
from utils.schedule.plan import Plan, group_names, make_plan
from utils.schedule.rates import Schedule, build_schedule, fitting_batch, within_pictures
from utils.schedule.warn import of_batch, warnings

log = logging.getLogger(__name__)
DEFAULTS = ("runs/train", "runs/compare")  # a --project that nobody gave: plan.png goes to runs/plan
Count = Callable[[Hyp, bool], tuple[int, bool, int]]  # run, whether to download -> pictures, whether exact, classes


@dataclass(frozen=True)
class Variant:
    """One hyp file of the command line, or the command line itself."""

    name: str
    command: Command
    hyp: Hyp
    notes: list[str]


def asks_for_plan(argv: list[str]) -> bool:
    """Whether --plan is among the words of a command line."""
    return bool({"--plan", "--plan=true", "plan=true", "--plan=True", "plan=True"} & set(argv))


def preview(argv: list[str], count: Count) -> list[tuple[Hyp, int]]:
    """Say and draw what `argv` would do; as `show`."""
    variants = split_variants(argv)
    return show(variants, count, variants[0].hyp.project)


def show(
    variants: Sequence[Variant],
    count: Count,
    project: str,
    notes: Sequence[str] = (),
    pairs: Sequence[int | None] = (),
    kind: str = "seeds",
) -> list[tuple[Hyp, int]]:
    """Say and draw, in the folder `project`, the plan of every variant, and what all cost with `pairs` seeds or folds.

    Returns the runs whose network is there, each with its number of pictures: what it says of them is to be checked.
    """
    configure_console()
    for note in notes:
        log.info(note)
    drawn, counted, checkable = [], {}, []
    for variant in variants:
        command, hyp = variant.command, variant.hyp
        if command.resume:
            raise UserError("--plan shows a new run; a run that is resumed keeps the plan.png of its folder.")
        longer = extension_of_yaml(command, hyp) if command.extend else None
        hyp = longer.hyp if longer else hyp
        if hyp.batch == -1:
            raise UserError("--plan needs the number of pictures per batch: batch -1 is found out with the model only.")
        if len(variants) > 1:
            log.info(f"\n{variant.name}")
        for note in variant.notes:
            log.info(note)
        where = str((hyp.data, hyp.single_cls, hyp.classes, hyp.albumentations, hyp.fold, hyp.fold_seed))
        if where not in counted:
            counted[where] = count(hyp, command.download)
        pictures, exact, nc = counted[where]
        _, n, nb = within_pictures(pictures, hyp)
        hyp = for_data(hyp, n, nc)
        schedule = build_schedule(hyp, nb, hyp.batch, group_names(hyp))
        plan = make_plan(schedule, hyp)
        log.info(f"pictures  {n} for training{'' if exact else ' (files counted; no index of them is kept yet)'}")
        say(plan, schedule, hyp, stable_part(schedule, hyp))
        if longer:
            at = longer.begins_at(nb)
            log.info(f"extends   {longer.folder} from batch {at} on: {schedule.total - at} are left to be trained")
        log.info("")
        for line in table(schedule):
            log.info(line)
        drawn.append(Drawn(variant.name, schedule, plan, hyp))
        if has_network(hyp):
            checkable.append((hyp, n))
        else:
            unchecked = f"imgsz {hyp.imgsz}" + (" (no multiple of 32, as most want)" if hyp.imgsz % 32 else "")
            log.info(f"note: weights {hyp.weights} are not here, so {unchecked} and freeze are not checked")
    folder = Path("runs/plan" if project in DEFAULTS else project)
    for line in ["", *cost_lines(drawn, pairs, kind), f"drawn: {_draw(drawn, folder)}"]:
        log.info(line)
    return checkable


def has_network(hyp: Hyp) -> bool:
    """Whether the network of a run can be built from what is on this machine; ultralytics has many a yaml."""
    name = hyp.weights or ""
    return name.endswith((".yaml", ".yml")) or (bool(name) and any(path.exists() for path in weight_places(name)))


def cost_lines(drawn: Sequence[Drawn], pairs: Sequence[int | None], kind: str) -> list[str]:
    """What the runs of a comparison come to, for each number of `pairs`."""
    each = ", ".join(f"{d.name} {d.schedule.total} batches and {evaluations(d.hyp)} evaluations" for d in drawn)
    lines = [f"each run  {each}"] if pairs else []
    for n in dict.fromkeys(n for n in pairs if n):
        batches, scored = (n * sum(map(of, drawn)) for of in (lambda d: d.schedule.total, lambda d: evaluations(d.hyp)))
        lines.append(
            f"cost      {n * len(drawn)} runs ({len(drawn)} arms x {n} {kind}): {batches:,} batches and {scored:,} "
            "evaluations; finished runs are not made again"
        )
    return lines


def evaluations(hyp: Hyp) -> int:
    """Times that a run is scored: every val_every epochs and after the last; there the raw weights and best.pt too."""
    return 2 + (1 if hyp.noval else -(-hyp.epochs // hyp.val_every))


def for_data(hyp: Hyp, n: int, nc: int) -> Hyp:
    """The run on `n` pictures of `nc` classes: a batch has at most all, `auto` is settled; what changes is said."""
    batch = fitting_batch(hyp, n)
    for line in of_batch(hyp.batch, batch):
        log.info(f"warning: {line}")
    if hyp.optimizer != "auto":
        return hyp.model_copy(update={"batch": batch})
    chosen, iterations = auto_optimizer(n, nc, hyp.batch, hyp.nbs, hyp.epochs)
    words = ", ".join(f"{key} {value}" for key, value in chosen.items())
    log.info(f"optimizer auto chose {words}: {iterations} iterations, and musgd only above 10,000")
    return hyp.model_copy(update={"batch": batch} | chosen)


def announce(plan: Plan, schedule: Schedule, hyp: Hyp, folder: Path, stable: Alike) -> None:
    """The plan of a run that starts now, on the console and as plan.png in its folder; stable: what of it is kept."""
    say(plan, schedule, hyp, stable)
    if not hyp.noplots:
        plot_plan([Drawn(folder.name, schedule, plan, hyp)], folder / "plan.png")


def say(plan: Plan, schedule: Schedule, hyp: Hyp, stable: Alike) -> None:
    """The figures of a plan, whether it can be extended, and the warnings on it."""
    for line in [*describe(plan, schedule, hyp), *extend_lines(stable, hyp)]:
        log.info(line)
    for line in warnings(plan, schedule, hyp):
        log.info(f"warning: {line}")


def split_variants(argv: list[str]) -> list[Variant]:
    """One variant for every --hyp of the command line (`--hyp a --hyp b`, `--hyp a b`); the rest holds for all."""
    files, rest, words = [], [], list(argv)
    while words:
        word = words.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if key != "hyp":
            rest.append(word)
            continue
        files += [value] if equals else []
        if not equals and not words:
            rest.append(word)  # without a file: refused where words are read
        while not equals and words and not is_option(words[0]):
            files.append(words.pop(0))
    names = [Path(file).stem for file in files]
    names = [file if names.count(name) > 1 else name for file, name in zip(files, names, strict=True)]
    named = list(zip(names, files, strict=True)) or [("run", None)]
    return [Variant(name, *parse_args(rest + (["--hyp", file] if file else []))) for name, file in named]


def _draw(drawn: list[Drawn], folder: Path) -> Path:
    """Write plan.png into a folder, over an older one; a plan takes no run folder from a real run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        plot_plan(drawn, folder / "plan.png")
    except OSError as e:
        raise UserError(f"cannot write to {folder}: {e.strerror}. Choose another --project.") from e
    return folder / "plan.png"
