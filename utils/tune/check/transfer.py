"""What to try next: step 7 of a check, with the lecture's guide to transfer learning. PURE."""

from collections.abc import Mapping, Sequence

from utils.tune.check.lecture import Trial

FEW = 1000  # training pictures; fewer are a small data set
NEAR = 0.25  # running standard deviations: photographs against COCO 0.16 to 0.21, blood cells and plates 0.32 to 0.39


def transfer(
    pictures: int, known: Sequence[str], names: Sequence[str], epochs: int, apart: float | None
) -> tuple[str, dict[str, list[str]]]:
    """Which of the four cases of transfer learning this is, and arms of compare.py that try what the guide says.

    apart: how far the backbone's channels lie from where they lay in its training (`statistics_apart`); None where it
    has learnt nothing: then nothing is near. known: classes of the data that the weights know by name. The data are
    near to what was learnt where the pictures are, whatever the classes are called; both are told.
    """
    near, few = apart is not None and apart <= NEAR, pictures < FEW
    about = f"{pictures} training pictures, {len(known)} of {len(names)} classes known to the weights by name, " + (
        "a backbone that has learnt nothing yet"
        if apart is None
        else f"the backbone's channels {apart:.2f} standard deviations from where they lay in its training"
    )
    arms = {"as-set": []}
    if few and near:
        arms |= {"frozen": ["freeze=backbone"], "slow-backbone": ["lr_backbone=0.1"]}
        return f"few pictures, near to what was learnt ({about}): train the head, or hardly move the backbone", arms
    if few:
        arms |= {"slow-backbone": ["lr_backbone=0.1"], "some-frozen": ["freeze=4"]}
        return (
            f"few pictures, far from what was learnt ({about}): the hardest case; keep the first layers, move the rest",
            arms,
        )
    if near:
        arms |= {"slow-backbone": ["lr_backbone=0.3"]}
        return f"many pictures, near to what was learnt ({about}): train everything, the backbone perhaps slower", arms
    return f"many pictures, far from what was learnt ({about}): train everything, longer", arms | {
        "longer": [f"epochs={2 * epochs}"]
    }


def next_commands(words: str, best: Trial | None, arms: Mapping[str, Sequence[str]], epochs: int) -> list[str]:
    """Step 7: commands that try what was found, against the settings as they are; words: of the run."""
    lines = []
    if best:
        own = f"lr0={best.lr0:.2g} weight_decay={best.weight_decay:.2g}"
        lines.append(f"python compare.py {words} --seeds 6 --arm as-set --arm found {own}")
        lines.append(f"python train.py {words} {own} --epochs {epochs}")
    told = " ".join(" ".join(["--arm", name, *own]) for name, own in arms.items())
    return [*lines, f"python compare.py {words} --seeds 6 {told}"]
