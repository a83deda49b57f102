"""The model card: what it must say, and names that cannot break it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from src.evaluation.findings import LeakageRow, Split
from src.evaluation.model_card import model_card
from tests.findings import findings, judged


def test_the_card_has_data_numbers_limits_and_licence() -> None:
    split = Split(
        "random", {"train": ["a"] * 7, "validation": ["b"], "test": ["c"] * 2}, [LeakageRow("have a twin", 1, 2)]
    )
    found = findings(split=split, run={"num_weights": 12345, "settings": {"epochs": 3, "seed": 42}})
    card = model_card(found)
    for heading in ("Training data", "How good it is", "Limits", "Licence", "How it was made"):
        assert f"\n## {heading}\n" in card
    assert "7 train, 1 validation, 2 test" in card
    assert "It leaks" in card
    assert "1 of 2 test complexes have a twin" in card
    assert f"| this model | {found.ours['rmse']} |" in card
    assert "12,345 weights" in card
    assert "| seed | 42 |" in card
    assert "python main.py --evaluate" in card


def test_names_cannot_break_the_tables() -> None:
    evil = "a|b\n# c <script> `x` [y](z)"
    one = judged(12, kinds=(evil,) * 12)
    card = model_card(findings(one, baselines={evil: np.zeros(12)}, run={"checkpoint": evil}))
    assert "<script" not in card
    assert "\n# c" not in card
    assert "[y](z)" not in card
    for line in card.splitlines():
        if line.startswith("| "):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 8, 9), line


@pytest.mark.fault("I14")
@pytest.mark.parametrize(
    "evil", ["![x](http://a.b/c)", "<img src=x>", "**b** _i_ ~~s~~", "a\n# b", "`c`", "www.a.b", "\\|"]
)
def test_nothing_of_a_checkpoint_is_markup(evil: str) -> None:
    split = Split("random", {"train": ["a"], evil: ["b"], "test": ["c"]}, [LeakageRow(evil, 1, 1)])
    card = model_card(findings(split=split, run={"versions": {"torch": evil, evil: "1"}, "joined_with": evil}))
    (versions,) = [line for line in card.splitlines() if line.startswith("Versions: ")]
    for text in (versions, card):
        for markup in ("](", "<img", "**b", " _i", "~~", "\n# b", "`c", "http:/", "www.", " \\|"):
            assert markup not in text
    assert "dataset_path=/data/x_y" in model_card(
        findings(run={"command": "python main.py --set dataset_path=/data/x_y"})
    )


def test_a_number_that_is_not_defined_is_na() -> None:
    assert "n/a" in model_card(findings(judged(1)))
