"""When many complexes cannot be used: a table that is hard to miss, and a limit."""

from __future__ import annotations

import pytest

from src.data.audit import AttritionError, attrition_text, require_enough
from src.pdbbind.index import Skipped

LOST = [
    *(Skipped(f"1a{n:02}", "ligand", f"/data/1a{n:02}/1a{n:02}_ligand.sdf: atom {n} has no element") for n in range(7)),
    *(Skipped(f"1b{n:02}", "files", "no folder of this name") for n in range(3)),
    Skipped("1c00", "worker", "took longer than 60 s"),
]
BY_CHOICE = [Skipped(f"1d{n:02}", "settings", "resolution 3.2 is worse than 2.5") for n in range(50)]


@pytest.mark.fault("F10")
def test_losses_are_counted_by_reason_with_an_example_most_frequent_first() -> None:
    lines = attrition_text([*BY_CHOICE, *LOST], 89).splitlines()
    assert lines[0] == "ATTENTION: 11 of 100 complexes cannot be used (11 %):"
    assert [line.split(" x ")[0].strip() for line in lines[1:]] == ["7", "3", "1"]
    assert lines[1].endswith("x ligand: .. atom .. has no element, such as 1a00")
    assert lines[2].endswith("x files: no folder of this name, such as 1b00")


@pytest.mark.fault("F10")
def test_few_losses_and_what_settings_leave_out_are_no_reason_to_shout() -> None:
    assert attrition_text([*BY_CHOICE, *LOST], 99) == ""  # 11 of 110
    assert attrition_text(BY_CHOICE, 0) == ""
    assert attrition_text([], 0) == ""


def test_the_rarest_reasons_share_a_row() -> None:
    letters = "abcdefghijklmnop"
    rows = [Skipped(f"1{letter}00", "graph", f"reason {letter}") for letter in letters]
    lines = attrition_text(rows, 0).splitlines()
    assert len(lines) == 14
    assert lines[-1].strip() == "4 x other reasons, see skipped.csv"


@pytest.mark.fault("F10")
def test_the_limit_stops_a_training_and_names_the_numbers() -> None:
    require_enough([*BY_CHOICE, *LOST], 11, 0.5)
    with pytest.raises(AttritionError, match=r"11 of 21 complexes .* max_failed_fraction = 0\.5"):
        require_enough([*BY_CHOICE, *LOST], 10, 0.5)
    require_enough(LOST, 0, 1.0)
    with pytest.raises(AttritionError):
        require_enough(LOST[:1], 1000, 0.0)
