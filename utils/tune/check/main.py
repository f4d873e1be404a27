"""tune.py check: seven steps, each made once, and a page."""

import logging
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.compare.folder import write_text
from utils.compare.launch.local import device_slots
from utils.errors import StoppedBySignal
from utils.tune.bench import Bench
from utils.tune.check.lab import Lab, OutOfTime
from utils.tune.check.notes import Notes
from utils.tune.check.page import WORDS, check_page
from utils.tune.check.runs import best_trial, read_curves, run_grid, run_longer
from utils.tune.check.transfer import next_commands, transfer
from utils.tune.check.tries import learn_by_heart, look_at_start, try_rates
from utils.tune.options import Check

log = logging.getLogger(__name__)
SOME = 64  # evaluation pictures whose features are held against those of the weights' own training
STEPS = (look_at_start, learn_by_heart, try_rates, run_grid, run_longer, read_curves)


def check(options: Check, bench: Bench, words: Sequence[str], began: float) -> dict[str, Any]:
    """What was found stands in check.json, and on a page in the end; words: of the run; began: monotonic."""
    minutes = options.minutes or (4.0 if list(words) == ["--hyp", "demo"] else 30.0)
    log.info(f"seven steps within {minutes:g} minutes; the same command goes on where it stopped")
    notes = Notes.of(Path(options.project), options.name, {"pictures": options.pictures, **bench.hyp.model_dump()})
    if "apart" not in notes.numbers:
        notes.numbers["apart"] = bench.apart(SOME)
    until = began + 60 * minutes - notes.seconds
    slots = device_slots(bench.hyp.device, options.jobs)
    batches = -(-bench.train.per_epoch // bench.hyp.batch)
    try:
        take_steps(Lab(bench, batches, options.pictures, notes.numbers, notes.folder, slots, until), notes, began)
    except StoppedBySignal:
        log.info(f"kept: {len(notes.findings)} finished steps, and finished runs. Repeat the command to go on.")
        raise
    apart = notes.numbers["apart"]
    case, arms = transfer(bench.train.n, bench.known, bench.train.names, bench.hyp.epochs, apart)
    best = best_trial(notes.numbers.get("trials5") or notes.numbers.get("trials4") or [])
    commands = next_commands(shlex.join(words), best, arms, bench.hyp.epochs)
    told = {"case": case, "commands": commands, "minutes": f"{minutes:g}"}
    told["command"] = "python tune.py check " + shlex.join([*words, "--minutes", f"{minutes:g}"])
    write_text(notes.folder / "check.html", check_page(notes.folder.name, notes.listed, notes.numbers, told))
    for line in (case, *commands, f"report: {notes.folder / 'check.html'}"):
        log.info(line)
    return {"findings": {f.step: f.verdict for f in notes.listed}, **notes.numbers}


def take_steps(lab: Lab, notes: Notes, began: float) -> None:
    """Those that have not been made yet, as long as there is time, with what each found."""
    for number, step in enumerate(STEPS, 1):
        try:
            if number not in notes.findings:
                notes.findings[number] = step(lab)
        except OutOfTime:
            log.info(f"{number}. the minutes are over: the same command with more --minutes goes on here")
            break
        finally:
            notes.write(time.monotonic() - began)
        found = notes.findings[number]
        log.info(f"{number}. {found.title}: {WORDS[found.verdict]}. {found.evidence}")
        if found.advice:
            log.info(f"   {found.advice}")
