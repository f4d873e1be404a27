"""The report on a comparison: what it says, that it opens offline in a browser, and what broken runs do to it."""

import base64
import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.utils.compare.browser import browse, find_chromium, listening, measure
from tests.utils.compare.compared import EPOCHS, NB, make_comparison
from utils.compare.record import ArmVerdict
from utils.compare.report.facts import read_facts, read_first_batches
from utils.compare.report.markdown import fenced, markdown, plain
from utils.compare.report.page import write_report
from utils.compare.report.tables import RUN_COLUMNS, arms_table, differences_table
from utils.compare.report.words import caveats, duration, headlines, plainly, points
from utils.compare.statistics.verdict import verdicts
from utils.drawing.page import clean
from utils.errors import UserError

HOSTILE = "<script>alert(1)<|script> $x$ _y\u202e"  # a slash would be a folder
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """A page taken apart: elements in their order, tables by caption, what is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text: list[tuple[str, str]] = []  # (tags around it, text)
        self.feed(html)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append((" ".join(self.open), data))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.elements if name == tag]

    def within(self, tag: str) -> str:
        """All text inside elements of that name."""
        return " ".join(" ".join(t for tags, t in self.text if tag in tags.split()).split())


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """Two arms, six seeds, everything done; with its report."""
    folder = tmp_path_factory.mktemp("compare") / "exp"
    make_comparison(folder, notes=["the arms differ in weights: yolo11n.pt, yolo11s.pt"])
    assert write_report(folder) == folder / "report.html"
    return folder


def told(folder: Path) -> dict:
    return json.loads((folder / "comparison.json").read_text())


def html_of(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_verdict_comes_first_and_the_rest_in_order(two):
    html, verdict = html_of(two), told(two)["verdicts"]["cold"]
    page = Page(html)
    headings = [t for tags, t in page.text if tags.endswith(("h1", "h2")) and t.strip()]
    assert headings[:2] == ["exp: cold against warm", f"cold against warm: {verdict['kind']} larger than 1 point"]
    assert headings[2:] == [
        *("The differences", "val/mAP50-95 over the epochs", "The first batches", "Secondary measures", "The runs"),
        *("What differs between the arms", "Looks, and how the 5 % are spent", "Versions and commands"),
    ]
    assert html.index(verdict["sentence"]) < html.index("<img") and "secondary: no tests, no claims" in html.lower()
    assert page.all("html") == [{"lang": "en"}] and headings[1] in page.within("title")
    for text in ("the arms differ in weights", "c0dec0de", "da7ada7a", "8e639f5", "'blood cells.yaml'", "seed=5"):
        assert text in page.within("main")


def test_it_is_accessible_and_needs_nothing_else(two):
    page = Page(html_of(two))
    assert len(page.all("img")) == 9 and not page.all("script") and not page.all("link")
    assert all(
        len(image["alt"]) > 20 and image["src"].startswith("data:image/png;base64,") for image in page.all("img")
    )
    assert len(page.all("caption")) == len(page.all("table")) == 8
    assert {th["scope"] for th in page.all("th")} == {"row", "col"}
    assert not re.search(r"url\(|@import|https?:", html_of(two))
    links = [a["href"] for a in page.all("a")]
    assert len(links) == 12 and all(link.startswith("./") and (two / unquote(link)).is_dir() for link in links)
    assert "default-src 'none'" in str(page.all("meta"))


def test_every_pair_is_drawn_and_said(two):
    scores = {(run["arm"], run["seed"]): run["score"] for run in told(two)["runs"]}
    alt = next(image["alt"] for image in Page(html_of(two)).all("img") if "minus" in image["alt"])
    for seed in range(6):
        assert f"seed {seed} {100 * (scores['cold', seed] - scores['warm', seed]):+.2f}" in alt
    verdict = told(two)["verdicts"]["cold"]
    assert f"95 % interval {100 * verdict['low']:+.2f} to {100 * verdict['high']:+.2f}" in alt
    for image in Page(html_of(two)).all("img"):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1]))).convert("L"))
        assert min(pixels.shape) > 200 and pixels.std() > 5


def test_tables_hold_the_numbers_of_the_runs(two):
    facts = read_facts(two)
    for row, arm in zip(arms_table(facts).rows, ("warm", "cold"), strict=True):
        scores = [run["score"] for run in told(two)["runs"] if run["arm"] == arm]
        assert row[1:4] == ["6", f"{np.mean(scores):.4f}", f"{np.std(scores, ddof=1):.4f}"]
    rows = dict(differences_table(facts).rows)
    verdict = told(two)["verdicts"]["cold"]
    assert rows["mean difference"] == f"{100 * verdict['mean']:+.2f} points" and rows["pairs"] == "6"
    assert rows["an effect needs at most"] == "none possible at this look"  # six of at most twelve pairs


def test_results_csv_has_a_row_for_each_run_in_full_precision(two):
    with open(two / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == RUN_COLUMNS and RUN_COLUMNS[:4] == ("arm", "seed", "status", "score")
    assert RUN_COLUMNS[-3:] == ("seconds", "device", "folder")
    assert [float(row["score"]) for row in rows] == [run["score"] for run in told(two)["runs"]]
    assert [float(row["area"]) for row in rows] == [run["secondary"]["area"] for run in told(two)["runs"]]
    assert {(row["arm"], row["seed"]) for row in rows} == {(a, str(s)) for a in ("warm", "cold") for s in range(6)}


def test_markdown_tells_the_same(two):
    text, page = (two / "report.md").read_text(encoding="utf-8"), html_of(two)
    verdict = told(two)["verdicts"]["cold"]
    assert verdict["sentence"] in text and text.index(verdict["sentence"]) < text.index("## Scores")
    for row in arms_table(read_facts(two)).rows:
        assert "| " + " | ".join(row) + " |" in text and all(cell in page for cell in row)
    tables = [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", text, re.M)]
    assert len(tables) == 7  # all but what the arms share
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "python compare.py --data 'blood cells.yaml'" in text and "no tests, no claims" in text


def test_it_can_be_written_again_and_leaves_nothing_beside(two):
    before = sorted(p.name for p in two.iterdir())
    first = html_of(two)
    write_report(two)
    assert html_of(two) == first and sorted(p.name for p in two.iterdir()) == before


def test_the_first_batches_are_read_whole_and_no_further(two):
    facts = read_facts(two)
    curves = read_first_batches(two / "runs/warm/seed0", 15)
    assert (
        list(curves["train/box"]) == list(curves["lr/weight"]) == list(range(16))
    )  # losses are written later than rates
    assert list(curves["train/grad_norm"]) == list(range(1, 16, 2))  # only batches that closed a step
    assert not {tag for tag in curves if tag.startswith(("val/", "train/clip"))}
    assert facts.runs[0].epochs.keys() == set(range(1, EPOCHS + 1)) and facts.record.window == NB
    titles = [t for tags, t in Page(html_of(two)).text if tags.endswith("figcaption")]
    for title in ("Learning rate: bias", "Learning rate: norm, weight", "Momentum", "Gradient norm before clipping"):
        assert title in titles


def test_three_arms_have_a_verdict_and_a_picture_each(tmp_path, undrawn):
    make_comparison(tmp_path, {"warm": 0.0, "cold": 2.4, "gentle": -0.1}, seeds=8)
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    verdicts = told(tmp_path)["verdicts"]
    assert verdicts["cold"]["kind"] == "helps" and "cold against warm: helps" in page.within("h2")
    assert [v["sentence"] in page.within("main") for v in verdicts.values()] == [True, True]
    assert sum(image["alt"].startswith("Difference") for image in page.all("img")) == 2
    assert {a["class"] for a in page.all("section") if "class" in a} == {"verdict helps", "verdict no-difference"}


def test_a_diverged_run_is_counted_and_said(tmp_path, undrawn):
    make_comparison(tmp_path, ended={("cold", 2): "diverged"})
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    lost = 100 * told(tmp_path)["runs"][2]["score"]
    assert "cold: 1 of 6 runs diverged" in page.within("ul") and "(seed 2)" in page.within("ul")
    assert f"seed 2 {-lost:+.2f}" in next(i["alt"] for i in page.all("img") if i["alt"].startswith("Difference"))
    assert "the loss is NaN or infinite at batch 23" in page.within("details")
    assert arms_table(read_facts(tmp_path)).rows[1][1:5:3] == ["6", "0.0000"]  # all six, the lowest counted as 0
    assert "5 of 6 runs" in markdown(read_facts(tmp_path))  # the secondary measures have no such number


def test_hostile_names_and_messages_stay_text(tmp_path):
    message = "</pre><script>document.title='owned'</script>\n<img src=http://evil.invalid/x.png>\n````\n\x1b[31mred\x00\udc80"
    ended = {("warm", 1): "failed", ("warm", 4): "missing"}
    make_comparison(tmp_path, {"warm": 0.0, HOSTILE: 0.3}, ended=ended, message=message)
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert not page.all("script") and not [i for i in page.all("img") if "evil" in i["src"]]
    assert f"{clean(HOSTILE)} against warm: undecided, under 6 pairs nothing is claimed" in clean(page.within("h2"))
    assert "<img src=http://evil.invalid/x.png>" in page.within("pre") and "owned" not in page.within("title")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    inside = re.sub(r"(?ms)^(`{3,})\n.*?^\1$", "", text)
    assert "evil" in text and "evil" not in inside  # between fences only
    assert not re.search(r"(?<!\\)<", inside) and not re.search(r"(?<!\\)\$", inside)
    statuses = [t for tags, t in page.text if tags.endswith("td span")]
    assert (statuses.count("done"), statuses.count("failed"), statuses.count("missing")) == (10, 1, 1)
    assert "Incomplete: 10 of 12 runs have ended" in page.within("ul") and "(exit code 1)" in page.within("summary")


def test_broken_files_are_named_and_stop_nothing(tmp_path, undrawn):
    make_comparison(tmp_path)
    runs = tmp_path / "runs"
    (runs / "warm/seed0/metrics.csv").write_text("epoch,ni,val/mAP50-95\n1,10,zero\n")
    (runs / "warm/seed1/metrics.csv").write_bytes(bytes(range(256)))
    (runs / "warm/seed2/metrics.csv").unlink()
    (runs / "warm/seed3/metrics.csv").write_text("ni\n10,20,30\n")
    next((runs / "warm/seed4").glob("events*")).write_bytes(b"not an event" * 99)
    whole = next((runs / "warm/seed5").glob("events*")).read_bytes()
    next((runs / "warm/seed5").glob("events*")).write_bytes(whole[: len(whole) // 2])
    shutil.rmtree(runs / "cold/seed0")
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    said = page.within("ul")
    for words in (
        *(
            "warm, seed 0: metrics.csv cannot be read",
            "warm, seed 1: metrics.csv",
            "warm, seed 2: metrics.csv is missing",
        ),
        *(
            "warm, seed 3: metrics.csv",
            "warm, seed 4: the TensorBoard events",
            "cold, seed 0: the run folder is missing",
        ),
    ):
        assert words in said
    assert "warm, seed 5" not in said  # half an event file is what a killed run leaves: its beginning is good
    assert len(page.all("a")) == 11 and told(tmp_path)["verdicts"]["cold"]["sentence"] in page.within("main")


def test_without_files_the_page_still_says_what_is_known(tmp_path, undrawn):
    make_comparison(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert len(page.all("img")) == 2 and not page.all("a")  # the scores are in comparison.json
    assert "No run has left a curve." in page.within("p") and "scalars of its batches" in page.within("p")


@pytest.mark.parametrize(("seeds", "words"), [(1, "a single pair has ended"), (0, "no pair of runs has ended")])
def test_without_two_pairs_there_is_no_verdict(tmp_path, undrawn, seeds, words):
    make_comparison(tmp_path, seeds=max(seeds, 1), ended={} if seeds else {("cold", 0): "missing"})
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "cold against warm: no verdict yet" in page.within("h2") and words in page.within("main")
    assert "No look so far" in page.within("main")


def test_few_pairs_claim_nothing(tmp_path):
    make_comparison(tmp_path, {"warm": 0.0, "cold": 9.0}, seeds=3)
    facts = read_facts(tmp_path)
    (head,) = headlines(facts)
    assert head["headline"] == "cold against warm: undecided, under 6 pairs nothing is claimed" and not caveats(facts)
    assert "helps" not in markdown(facts)


def test_runs_that_the_file_does_not_name_are_missing(tmp_path):
    make_comparison(tmp_path, seeds=2)
    content = told(tmp_path)
    del content["runs"][0]
    (tmp_path / "comparison.json").write_text(json.dumps(content | {"state": "incomplete"}))
    facts = read_facts(tmp_path)
    assert [run.status for run in facts.runs] == ["missing", "done", "done", "done"] and len(facts.pairs("cold")) == 1
    assert "warm: 1 of 2 runs missing" in caveats(facts)[1]


def test_pairs_are_seeds_at_which_every_arm_has_ended(tmp_path):
    ended = {("cold", 1): "failed", ("gentle", 4): "missing"}
    make_comparison(tmp_path, {"warm": 0.0, "cold": 0.5, "gentle": -0.1}, ended=ended)
    facts = read_facts(tmp_path)
    for arm in ("cold", "gentle"):
        assert [(a.arm, b.arm, a.seed) for a, b in facts.pairs(arm)] == [("warm", arm, s) for s in (0, 2, 3, 5)]
        assert told(tmp_path)["verdicts"][arm]["pairs"] == 4


def test_a_lost_pair_takes_the_verdict_back_until_it_is_made_again(tmp_path):
    looks = [{"pairs": 6, "when": "2026-11-21 17:12:00", "verdicts": {"cold": "helps"}}]
    make_comparison(tmp_path, ended={("cold", 1): "failed"}, verdicts={}, secondary={}, looks=looks)
    (head,) = headlines(read_facts(tmp_path))
    assert "5 whole pairs, 6 were there at an earlier look" in head["sentence"] and "helps" not in head["headline"]


def test_seeds_that_are_not_shared_are_named(tmp_path):
    make_comparison(tmp_path, seeds=2)
    content = told(tmp_path)
    for offsets, said in (((5, 5), False), ((0, 100), True)):
        for arm, offset in zip(content["arms"], offsets, strict=True):
            arm["seed_offset"] = offset
        (tmp_path / "comparison.json").write_text(json.dumps(content))
        assert ("share no draws" in markdown(read_facts(tmp_path))) == said


def test_no_room_is_one_message(tmp_path):
    make_comparison(tmp_path, seeds=1)
    (tmp_path / "results.csv").mkdir()
    with pytest.raises(UserError, match="cannot write .*results.csv"):
        write_report(tmp_path)
    assert not list(tmp_path.glob(".results*"))


def test_words():
    assert points(0.00354) == "+0.35 points" and points(-0.02, unit=False) == "-2.00" and points(None) == "-"
    assert [duration(s) for s in (61.2, 600, 9000, None)] == ["61 s", "10.0 min", "2.5 h", "-"]
    assert clean("a\x1b[31mb\x1b[0m\r\nc\x00\u202e\td") == "ab\nc\td"
    assert plain("a|b <i> [x](y) warmup_epochs *") == r"a\|b \<i> \[x\](y) warmup_epochs \*"
    assert fenced("``` a\n````")[0] == "`" * 5


@pytest.fixture(scope="module")
def own_hosts(tmp_path_factory) -> set[str]:
    """What this Chromium asks for by itself, on an empty page."""
    find_chromium()
    folder = tmp_path_factory.mktemp("empty")
    (folder / "empty.html").write_text("<!DOCTYPE html><title>empty</title>")
    with listening() as (port, seen):
        browse(folder / "empty.html", folder, "--dump-dom", "--virtual-time-budget=10000", port=port)
    return set(hosts(seen)) | {"update.googleapis.com", "accounts.google.com", "clients2.google.com"}


def hosts(lines: list[str]) -> Iterator[str]:
    """Hosts of the requests that a proxy saw: CONNECT host:443 HTTP/1.1, GET http://host/path HTTP/1.1."""
    for line in lines:
        yield re.sub(r"^https?://", "", line.split()[1]).split("/")[0].split(":")[0]


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_draws_it_and_asks_for_nothing(two, tmp_path, own_hosts, width):
    with listening() as (port, seen):
        told = measure(html_of(two), tmp_path, width, port)
    assert len(told["boxes"]) == 9 and told["width"] == width
    for w, h, natural_w, natural_h in told["boxes"]:
        assert 300 < w <= width and h > 100 and natural_w > 500 and natural_h > 200
    assert told["needs"] <= width, "the page scrolls sideways"
    assert set(hosts(seen)) <= own_hosts, seen


@pytest.mark.slow
def test_a_picture_from_elsewhere_would_be_noticed_and_is_forbidden(two, tmp_path, own_hosts):
    bad = html_of(two).replace("</main>", '<img src="http://elsewhere.invalid/x.png" alt=""></main>')
    with listening() as (port, seen):
        told = measure(bad, tmp_path, port=port)  # without the page's own policy
    assert "elsewhere.invalid" in set(hosts(seen)) - own_hosts and told["boxes"][-1][2:] == [0, 0]
    (tmp_path / "bad.html").write_text(bad, encoding="utf-8")
    with listening() as (port, seen):
        browse(tmp_path / "bad.html", tmp_path, "--dump-dom", "--virtual-time-budget=10000", port=port)
    assert set(hosts(seen)) <= own_hosts, seen  # with it


@pytest.mark.slow
def test_a_browser_shows_pixels_and_runs_no_script_of_a_name(tmp_path):
    find_chromium()
    make_comparison(tmp_path / "exp", {"warm": 0.0, HOSTILE: 0.3}, seeds=3)
    page = write_report(tmp_path / "exp")
    browse(page, tmp_path, f"--screenshot={tmp_path / 'page.png'}", "--window-size=1280,3000")
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"))
    assert pixels.shape == (3000, 1280, 3)
    for top in range(0, 3000, 750):
        assert pixels[top : top + 750].std() > 10  # no quarter is blank
    told = measure(page.read_text(encoding="utf-8"), tmp_path)
    assert told["title"].startswith("<script>alert(1)")


@given(st.floats(-0.05, 0.05), st.floats(0.001, 0.04), st.integers(6, 20), st.floats(0.002, 0.03))
def test_plain_words_agree_with_the_interval_and_the_margin(mean, sd, n, margin):
    shape = np.linspace(-1, 1, n)
    scores = 0.5 + mean + sd * shape / shape.std(ddof=1)
    judged = verdicts(np.full(n, 0.5), {"cold": scores}, margin=margin)["cold"]
    r = judged.paired
    entry = ArmVerdict(kind=judged.kind, sentence=judged.sentence, pairs=n, mean=r.mean, low=r.low, high=r.high)
    said = plainly(entry, margin)
    if judged.kind in ("helps", "hurts"):
        least, most = sorted((abs(r.low), abs(r.high)))
        assert f"certain enough that it {judged.kind}" in said.lower() and "loss" not in said[: 20 * (r.mean > 0)]
        assert ("more than the margin" in said) == (least > margin)
        assert ("less than" in said) == (most < margin)
        assert ("whether it reaches" in said) == (least <= margin <= most)
    else:
        assert ("does not matter" in said) == (judged.kind == "no difference")
        assert ("Not certain" in said) == (judged.kind == "undecided")
