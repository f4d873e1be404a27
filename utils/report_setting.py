"""Tables of what was compared and how: settings, looks, versions and hashes."""

from typing import Any

from utils.looks import effect_level, equivalence_level
from utils.report_facts import Facts
from utils.report_table import Table
from utils.report_text import NOTHING, clean, kind_words


def differs_table(facts: Facts) -> Table:
    """Keys of the resolved hyp in which the arms differ."""
    rows = [[key, *(_value(values.get(arm)) for arm in facts.arms)] for key, values in facts.told["differs"].items()]
    return Table("What differs between the arms", ("key", *facts.arms), rows, left=1 + len(facts.arms))


def shared_table(facts: Facts) -> Table:
    """All other keys."""
    rows = [[key, _value(value)] for key, value in facts.told["shared"].items()]
    return Table("What all arms share", ("key", "value"), rows, left=2)


def looks_table(facts: Facts) -> Table:
    """Every look, and what it asked of a claim."""
    rows, seen, arms = [], [], max(len(facts.arms) - 1, 1)
    last = facts.told["declared"]["max_seeds"]
    for look in facts.told["looks"]:
        seen = sorted({*(n for n in seen if n <= look["pairs"]), look["pairs"]})
        levels = [f(seen, last, arms) if look["pairs"] else 0.0 for f in (effect_level, equivalence_level)]
        claims = (
            ", ".join(f"{arm}: {kind_words(kind, facts.margin)}" for arm, kind in look["verdicts"].items()) or NOTHING
        )
        needs = [f"{level:.2g}" if level else "no claim possible" for level in levels]
        rows.append([clean(look.get("when", NOTHING)), claims, f"{look['pairs']} of {last}", *needs])
    head = ("when", "verdicts", "pairs", "an effect needs p ≤", "equivalence needs p ≤")
    return Table("Looks at the scores so far", head, rows, left=2)


def fingerprint_table(facts: Facts) -> Table:
    """Versions and hashes: what has to be the same for runs to be compared."""
    told = facts.told["fingerprint"]
    rows = [[key, _value(told.get(key))] for key in ("python", "platform", "device", "threads", "git")]
    rows += [[name, _value(version)] for name, version in (told.get("versions") or {}).items()]
    rows.append(["code, sha256", _value(told.get("code"))])
    for name, data in (told.get("data") or {}).items():
        rows.append([f"data {name}, {data.get('pictures', '?')} pictures, sha256", _value(data.get("content"))])
    rows += [[f"weights {name}, sha256", _value(value)] for name, value in (told.get("weights") or {}).items()]
    return Table("Versions and hashes", ("what", "value"), rows, left=2)


def _value(value: Any) -> str:
    """A value of a hyp file as YAML would show it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return clean(value)
