"""Every fault of the catalogue is held by a test, and every marker names a fault."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults.catalogue import (
    CATALOGUE,
    NOT_APPLICABLE,
    TIERS,
    CollectionError,
    Fault,
    Marked,
    marked_rows,
    missing,
    table,
)

ROWS_OF_SECTION = dict(zip("ABCDEFGHIJKLM", (12, 17, 14, 17, 6, 14, 12, 17, 14, 7, 10, 7, 11), strict=True))
SAMPLE = """
import pytest

pytestmark = pytest.mark.fault("A1")

@pytest.mark.fault("B1", "B2")
def test_quick(): ...

@pytest.mark.parametrize("case", [1, pytest.param(2, marks=pytest.mark.fault("C1")), 3])
def test_cases(case): ...

@pytest.mark.slow
@pytest.mark.fault("B1")
def test_slow(): ...

@pytest.mark.skipif(True, reason="not here")
@pytest.mark.fault("D1")
def test_elsewhere(): ...

@pytest.mark.xfail
@pytest.mark.fault("D1")
def test_expected_to_fail(): ...
"""


@pytest.fixture(scope="module")
def marked() -> dict[str, Marked]:
    return marked_rows()


def test_the_catalogue_has_every_row_once() -> None:
    assert [fault.row for fault in CATALOGUE] == [
        f"{section}{number}" for section, count in ROWS_OF_SECTION.items() for number in range(1, count + 1)
    ]
    assert len(CATALOGUE) == 158
    assert {fault.tier for fault in CATALOGUE} == set(TIERS)


def test_every_marker_names_a_row(marked: dict[str, Marked]) -> None:
    assert set(marked) <= {fault.row for fault in CATALOGUE}


def test_every_fault_is_held_in_the_suite_of_its_tier(marked: dict[str, Marked]) -> None:
    assert missing(marked) == []


def test_what_is_not_applicable_says_why_and_is_held_by_nothing(marked: dict[str, Marked]) -> None:
    assert set(NOT_APPLICABLE) <= {fault.row for fault in CATALOGUE}
    assert all(len(reason.split()) > 3 for reason in NOT_APPLICABLE.values())
    assert set(NOT_APPLICABLE).isdisjoint(marked)


# The reading of the markers


def test_markers_of_modules_functions_and_cases_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)  # pytest adds the folder too; this takes it away again
    monkeypatch.chdir(tmp_path)  # names of tests begin at the folder that both have in common
    (tmp_path / "test_sample_of_markers.py").write_text(SAMPLE)
    name = "test_sample_of_markers.py::test_"
    assert marked_rows(tmp_path) == {
        "A1": Marked(quick={name + "quick", name + "cases"}, slow={name + "slow"}),
        "B1": Marked(quick={name + "quick"}, slow={name + "slow"}),
        "B2": Marked(quick={name + "quick"}),
        "C1": Marked(quick={name + "cases"}),
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no_row", "import pytest\n@pytest.mark.fault\ndef test_a(): ...", r"test_a: fault\(\) names no row"),
        ("number", "import pytest\n@pytest.mark.fault(3)\ndef test_a(): ...", r"test_a: fault\(3,\) names no row"),
        ("broken", "import no_such_module", "No module named 'no_such_module'"),
    ],
)
def test_what_cannot_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str, message: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"test_sample_{name}.py").write_text(content)
    with pytest.raises(CollectionError, match=message):
        marked_rows(tmp_path)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="absent"):
        marked_rows(tmp_path / "absent")


@pytest.mark.parametrize(
    ("tier", "quick", "slow", "lacks"),
    [
        ("P0", True, False, []),
        ("P0", False, True, ["no quick test"]),
        ("P1", False, True, []),
        ("P1", True, False, []),
        ("P1", False, False, ["no test"]),
        ("P0+P1", True, False, ["no slow test"]),
        ("P0+P1", False, False, ["no quick test", "no slow test"]),
        ("P2", False, False, []),
    ],
)
def test_each_tier_asks_for_its_suite(
    monkeypatch: pytest.MonkeyPatch, tier: str, quick: bool, slow: bool, lacks: list[str]
) -> None:
    monkeypatch.setattr("tests.faults.catalogue.CATALOGUE", [Fault("X1", tier, "a fault")])
    held = {"X1": Marked(quick={"a.py::test_a"} if quick else set(), slow={"a.py::test_b"} if slow else set())}
    assert missing(held) == [f"X1 {what}: a fault" for what in lacks]


def test_the_table_has_a_line_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NOT_APPLICABLE, "A2", "there is no such file here")
    held = {"A1": Marked(quick={"tests/test_b.py::test_one", "tests/test_b.py::test_two"}, slow={"tests/c.py::test_z"})}
    lines = list(table(held))
    assert len(lines) == 2 + len(CATALOGUE)
    assert re.match(r"\| A1 \| .* \| P0\+P1 \| c: z, test_b: one, two \| quick, slow \|$", lines[2])
    assert lines[3].endswith("| P0 |  | not applicable: there is no such file here |")
    assert lines[4].endswith("| **no quick test** |")
