"""What runs of different length have alike, and what is said where it is nothing."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.utils.schedule.test_schedules import runs
from utils.config.options import parse_args
from utils.config.recipes import RECIPES
from utils.config.schema import Command, Hyp, save_hyp
from utils.errors import UserError
from utils.schedule.curves import DECAYS
from utils.schedule.extend import extension_of_yaml
from utils.schedule.past import alike, stable_part
from utils.schedule.plan import group_names
from utils.schedule.rates import Schedule, build_schedule, steps

NB = 10


def schedule_of(hyp: Hyp, nb: int = NB, epochs: int | None = None) -> Schedule:
    hyp = hyp if epochs is None else hyp.model_copy(update={"epochs": epochs})
    return build_schedule(hyp, nb, hyp.batch, group_names(hyp))


@given(runs, st.integers(1, 30))
def test_up_to_its_stable_part_a_run_is_every_longer_one(run, more):
    hyp, nb, batch = run
    hyp = hyp.model_copy(update={"batch": batch, "close_mosaic": min(more, 2)})
    short, long = schedule_of(hyp, nb), schedule_of(hyp, nb, hyp.epochs + more)
    at = stable_part(short, hyp).batches
    assert 0 <= at < short.total and (not at or at > max(short.nw, nb))
    if alike(hyp, hyp.model_copy(update={"epochs": hyp.epochs + more}), nb).batches < at:
        assert hyp.decay == "step", "a milestone that rounds to the same epoch: such a run is refused"
        return
    assert all(short(ni) == long(ni) for ni in range(at))
    windows = [[step for step in steps(schedule) if step[0] < at] for schedule in (short, long)]
    assert windows[0] == windows[1] and (not at or windows[0][-1][0] == at - 1), "no window is open there"


@pytest.mark.parametrize("decay", sorted(DECAYS))
def test_which_decays_have_a_stable_part(decay):
    hyp = Hyp(
        epochs=20,
        close_mosaic=0,
        decay=decay,
        nbs=16,
        power=1.001,
        **({"warmup_epochs": 0, "warmup": "none"} if decay == "one_cycle_torch" else {}),
    )
    at = stable_part(schedule_of(hyp), hyp).batches
    part = {"wsd": 160, "step": 60}.get(decay, 199)
    falls_by_length = decay in ("linear", "cosine", "exponential", "polynomial", "one_cycle", "one_cycle_torch")
    assert at == (0 if falls_by_length else part)


WSD = {"decay": "wsd", "epochs": 20, "close_mosaic": 0}
REFUSED = {
    "cosine": ({"decay": "cosine"}, False, "decay: cosine batch 1 has lr/bias"),
    "warm-up": (
        {"warmup_epochs": 8, "warmup_max": 0.3},
        False,
        r"warm-up takes 60 batches in a run of 20 epochs, and 80 in one of 60 \(warmup_max 0.3\)",
    ),
    "average": ({"ema_tau": "auto"}, False, "ema_tau: auto"),
    "mosaic": ({"close_mosaic": 20}, False, "mosaic ends after epoch 0 in a run of 20 epochs, and after epoch 40"),
    "branches": ({}, True, "two branches of the head"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_why_a_run_cannot_be_extended(case, tmp_path):
    changed, two_branches, why = case
    folder = run_folder(tmp_path, Hyp(**WSD | changed))
    with pytest.raises(UserError, match=why) as told:
        extension_of_yaml(Command(extend=str(folder)), Hyp(epochs=60)).begins_at(NB, two_branches)
    command = str(told.value).partition("rate of its end: ")[2].partition(". With")[0]
    assert parse_args(shlex.split(command)[2:])[1].epochs == 40


@pytest.mark.parametrize(
    "kind",
    [
        *({"decay": decay} for decay in sorted(DECAYS)),
        *({"recipe": recipe} for recipe in RECIPES),
        {"lrf": 0.0},
        {"min_lr": 1e-4},
        {"warmup_epochs_head": 2.0},
        {"decay": "cosine_restarts", "snapshots": True},
    ],
    ids=str,
)
def test_what_is_offered_in_place_is_a_run_that_starts_where_the_other_ended(kind, tmp_path):
    rules = {"power": 1.001, "warmup_epochs": 0} if kind.get("decay") == "one_cycle_torch" else {"power": 1.001}
    hyp = parse_args([f"{key}={value}" for key, value in {"epochs": 20, **rules, **kind}.items()] + ["data=x.yaml"])[1]
    folder = run_folder(tmp_path, hyp)
    words = extension_of_yaml(Command(extend=str(folder)), Hyp(epochs=60)).nearest(NB)
    offered = parse_args(words[2:])[1]
    at = schedule_of(hyp).total - 1
    first, ended = (
        next(lr for name, lr in rates.items() if name.endswith("weight"))
        for rates in (schedule_of(offered)(0).lr, schedule_of(hyp)(at).lr)
    )
    assert first == pytest.approx(ended or 0.0001, rel=1e-4)
    assert offered.weights.endswith("last.pt") and offered.data == "x.yaml"


def run_folder(path, hyp: Hyp):
    """A run folder without states, with a space in its path."""
    folder = path / "my run"
    (folder / "weights").mkdir(parents=True)
    save_hyp(folder / "hyp.yaml", hyp)
    return folder


def test_wrong_words_are_told(tmp_path):
    folder = run_folder(tmp_path, Hyp(**WSD))
    for given_hyp, command, why in (
        (Hyp(epochs=60), {"extend": str(tmp_path / "my runn")}, "no run at .*my runn: .*Did you mean 'my run'"),
        (Hyp(epochs=60), {"resume": "x"}, "--extend does not go with --resume"),
        (Hyp(epochs=60), {"exist_ok": True, "resume_anyway": True}, "not go with --resume-anyway, --exist-ok"),
        (Hyp(), {}, "wants --epochs, of the whole run: say how many, more than the 20 epochs"),
        (Hyp(epochs=20), {}, "20 is not more than the 20 epochs"),
        (Hyp(epochs=60, lr0=0.5, batch=4), {}, r"batch, lr0 cannot change \(batch: 16 at the start, 4 now; lr0: 0.01"),
    ):
        with pytest.raises(UserError, match=why):
            extension_of_yaml(Command(**{"extend": str(folder)} | command), given_hyp)
    file = folder / "weights/stable.pt"
    longer = extension_of_yaml(Command(extend=str(file)), Hyp(epochs=60, wsd_decay=0.1, workers=3, lr0=0.01))
    assert longer.folder == folder and (longer.hyp.wsd_decay, longer.hyp.workers, longer.hyp.epochs) == (0.1, 3, 60)
