"""`train.py --plan`: what one or several runs would do, said and drawn without a model; and the same for a real run."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from utils.config.options import is_option, parse_args
from utils.config.schema import Command, Hyp
from utils.errors import UserError
from utils.run.console import configure_console
from utils.schedule.describe import describe, table
from utils.schedule.draw import Drawn, plot_plan
from utils.schedule.plan import Plan, group_names, make_plan
from utils.schedule.rates import Schedule, batches_per_epoch, build_schedule, fitting_batch
from utils.schedule.warn import of_batch, warnings

log = logging.getLogger(__name__)
Count = Callable[[str | None, bool, bool], tuple[int, bool]]  # data, single_cls, download -> pictures, whether exact


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


def preview(argv: list[str], count: Count) -> dict[str, float]:
    """Say and draw what `argv` would do; returns no metrics. `count` tells the number of training pictures."""
    configure_console()
    variants = split_variants(argv if len(argv) > 1 else [*argv, "--hyp", "demo"])
    drawn, counted = [], {}
    for variant in variants:
        command, hyp = variant.command, variant.hyp
        if command.resume:
            raise UserError("--plan shows a new run; a run that is resumed keeps the plan.png of its folder.")
        if hyp.batch == -1:
            raise UserError("--plan needs the number of pictures per batch: batch -1 is found out with the model only.")
        if len(variants) > 1:
            log.info(f"\n{variant.name}")
        for note in variant.notes:
            log.info(note)
        where = (hyp.data, hyp.single_cls and hyp.classes is None)
        if where not in counted:
            counted[where] = count(*where, command.download)
        n, exact = counted[where]
        n, batch = max(round(n * hyp.fraction), 1), hyp.batch
        hyp = hyp.model_copy(update={"batch": fitting_batch(hyp, n)})
        for line in of_batch(batch, hyp.batch):
            log.info(f"warning: {line}")
        nb = batches_per_epoch(counted[where][0], hyp)
        schedule = build_schedule(hyp, nb, hyp.batch, group_names(hyp))
        plan = make_plan(schedule, hyp)
        log.info(f"pictures  {n} for training{'' if exact else ' (files counted; no index of them is kept yet)'}")
        say(plan, schedule, hyp)
        log.info("")
        for line in table(schedule):
            log.info(line)
        drawn.append(Drawn(variant.name, schedule, plan, hyp))
    log.info(f"\ndrawn: {_draw(drawn)}")
    return {}


def announce(plan: Plan, schedule: Schedule, hyp: Hyp, folder: Path) -> None:
    """The plan of a run that starts now, on the console and as plan.png in its folder."""
    say(plan, schedule, hyp)
    if not hyp.noplots:
        plot_plan([Drawn(folder.name, schedule, plan, hyp)], folder / "plan.png")


def say(plan: Plan, schedule: Schedule, hyp: Hyp) -> None:
    """The figures of a plan and the warnings on it."""
    for line in describe(plan, schedule, hyp):
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


def _draw(drawn: list[Drawn]) -> Path:
    """Write plan.png into the project's folder, over an older one; a plan takes no run folder from a real run."""
    project = drawn[0].hyp.project
    folder = Path("runs/plan" if project == Hyp().project else project)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        plot_plan(drawn, folder / "plan.png")
    except OSError as e:
        raise UserError(f"cannot write to {folder}: {e.strerror}. Choose another --project.") from e
    return folder / "plan.png"
