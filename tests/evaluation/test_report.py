"""One page that stands alone: its figures, its tables, its names, and what it says when there is little."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from src.evaluation import figures, report
from src.evaluation.findings import Findings, LeakageRow, Split
from src.evaluation.metrics import Interval
from src.evaluation.report import report_page
from src.pdbbind.index import Skipped
from tests.findings import findings, history, judged

EVIL = "<script>alert(1)</script><img src=http://evil.example/x>\"'&"
VOID = {"meta", "br", "path", "use", "circle", "line", "rect", "image", "ellipse", "polyline", "polygon"}


class Page(HTMLParser):
    """The tags, attributes and text of a page; every tag that is opened is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]
        assert not any(name.startswith("on") for name, _ in attributes)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def full(**changes: object) -> Findings:
    one = judged(60, targets=("kinase",) * 30 + ("protease",) * 30)
    split = Split(
        "random", {"train": ["x"], "validation": ["y"], "test": ["z"]}, [LeakageRow("identity > 0.9", 15, 60)]
    )
    powers = {"scoring power, 285 complexes": {"R": Interval(0.8, 0.7, 0.9)}}
    other = ("other.csv", dict.fromkeys(one.codes, 6.0))
    return findings(one, **{"split": split, "powers": powers, "other": other, **changes})


def test_the_page_needs_nothing_beside_itself() -> None:
    page = report_page(full())
    parsed = Page(page)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(parsed.tags)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in parsed.links)
    assert "http" not in page
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_the_page_has_every_part() -> None:
    page = report_page(full())
    parsed = Page(page)
    assert parsed.tags.count("figure") == 4
    for title in ("baselines", "split", "measured", "size", "Against", "CASF", "Training", "largest", "not used"):
        assert re.search(f"<h2>[^<]*{title}", page), title
    assert parsed.tags.count("h3") == report.NUM_WORST
    assert "15 of 60" in parsed.text
    assert "25.0%" in parsed.text
    assert "scoring power, 285 complexes" in parsed.text
    assert "Random split: similar complexes stand on both sides" in parsed.text
    assert "1 groups" not in parsed.text


def test_the_numbers_are_those_found() -> None:
    found = full()
    text = Page(report_page(found)).text
    ours = found.ours["rmse"]
    assert f"{ours.value:.2f}[{ours.low:.2f}, {ours.high:.2f}]" in text
    worst = int(np.argmax(np.abs(found.judged.predicted - found.judged.measured)))
    assert f"{found.judged.codes[worst]}measured {found.judged.measured[worst]:.2f}" in text


def test_names_from_files_are_text() -> None:
    one = judged(30, codes=[EVIL] * 30, kinds=(EVIL,) * 30, targets=(EVIL,) * 30)
    found = findings(
        one,
        baselines={EVIL: np.zeros(30)},
        split=Split(EVIL, {EVIL: ["x"], "test": ["z"]}, [LeakageRow(EVIL, 1, 2)]),
        skipped=[Skipped(EVIL, EVIL, EVIL)],
        left_out=[EVIL],
        other=(EVIL, {EVIL.lower(): 6.0}),
        powers={EVIL: {EVIL: Interval(1.0, 1.0, 1.0)}},
        run={"checkpoint": EVIL, "settings": {EVIL: EVIL}, "versions": {EVIL: EVIL}, "command": EVIL},
    )
    page = report_page(found)
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 15
    parsed = Page(page)
    assert not {"script", "img"} & set(parsed.tags)
    assert all(link.startswith("#") for link in parsed.links)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_little_or_constant_data_is_said_and_no_crash(count: int) -> None:
    one = judged(count, measured=np.full(count, 5.0), predicted=np.full(count, 6.0))
    text = Page(report_page(findings(one, run={"history": []}))).text
    assert "n/a" in text
    assert "nan" not in text.lower()
    assert "No history" in text


def test_a_difference_that_may_be_chance_is_called_so() -> None:
    one = judged()
    sure = report_page(findings(one, baselines={"bad": one.measured + 9}))
    assert "pK lower than that of the best baseline, bad" in sure
    assert "may be chance" not in sure
    unsure = report_page(findings(one, baselines={"as good": one.predicted[::-1] * 0 + one.predicted + 1e-3}))
    assert "may be chance" in unsure


def test_skipped_complexes_are_counted_by_reason() -> None:
    rows = [Skipped(f"s{number:03}", "ligand", "no atoms") for number in range(9)]
    text = Page(report_page(findings(skipped=rows))).text
    assert "no atoms9" in text
    assert "skipped.csv" in text
    assert "Every complex of the index is used" in report_page(findings(skipped=[]))


def test_without_matplotlib_the_page_says_how_to_get_figures(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(figures, "find_spec", lambda name: None)
    page = report_page(full())
    assert "pip install matplotlib" in page
    assert "pip install matplotlib" in caplog.text
    assert "<figure" not in page
    assert Page(page).tags.count("h3") == report.NUM_WORST  # the drawings are RDKit's


def test_a_synthetic_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Synthetic complexes" in report_page(findings(run={"synthetic": True, "history": history(1)}))
    assert "Synthetic complexes" not in report_page(findings())


def test_the_interval_is_on_the_page_with_what_it_holds() -> None:
    assert "The interval of ±1.50 pK on average" in report_page(findings(half_width=1.5))
    assert "The interval of" not in report_page(findings())
