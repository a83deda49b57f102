"""From an index to labelled graphs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from src.data.audit import audit
from src.data.batching import (
    collate,
)
from src.data.dataset import (
    Dataset,
    load_dataset,
    measured_pk,
)
from src.optimization.losses import squared_errors
from src.pdbbind.index import Skipped
from src.settings import Settings
from tests.complexes import sdf_text, small_settings, write_complex, write_dataset

CODES = [f"{number}abc" for number in range(1, 7)]


def load(settings: Settings) -> Dataset:
    return load_dataset(settings.data, settings.graph, settings.processing)


def write_index(folder: Path, lines: Sequence[str]) -> None:
    index = folder / "data" / "index" / "INDEX_test.2020R1.lst"
    index.parent.mkdir(parents=True, exist_ok=True)
    index.write_text("\n".join([*lines, ""]))


@pytest.fixture
def mixed(tmp_path: Path) -> Settings:
    """Nine lines: 1abc and 2abc are good, every other line is given up at another stage."""
    for code in ("1abc", "2abc", "3abc", "5abc", "7abc", "8abc"):
        write_complex(tmp_path / "data", code)
    (tmp_path / "data" / "5abc" / "5abc_ligand.sdf").unlink()
    (tmp_path / "data" / "7abc" / "7abc_ligand.sdf").write_text("garbage")
    (tmp_path / "data" / "8abc" / "8abc_ligand.sdf").write_text(sdf_text(shift=(500.0, 0.0, 0.0)))
    (tmp_path / "data" / "9abc").mkdir()
    write_index(
        tmp_path,
        [
            "1abc  2.00  2010  Kd=1nM  // 1abc.pdf (ACM)",
            "2abc  2.00  2010  Ki=1uM  // 2abc.pdf (ACM)",
            "3abc  2.00  2010  Kd<1nM  // 3abc.pdf (ACM)",  # censored
            "4abc  2.00  2010  Kd=1nM  // 4abc.pdf (ACM)",  # no folder
            "5abc  2.00  2010  Kd=1nM  // 5abc.pdf (ACM)",  # no ligand file
            "6abc  2.00  2010  Kd=1xM  // 6abc.pdf (ACM)",  # no unit
            "7abc  2.00  2010  Kd=1nM  // 7abc.pdf (ACM)",  # ligand that cannot be read
            "8abc  2.00  2010  Kd=1nM  // 8abc.pdf (ACM)",  # ligand far away
            "9abc  2.00  2010  Kd=1nM  // 9abc.pdf (ACM)",  # empty folder
        ],
    )
    return small_settings(tmp_path)


# The data set


@pytest.mark.fault("F11")
def test_every_line_is_a_graph_or_a_row(mixed: Settings) -> None:
    dataset = load(mixed)
    assert [example.graph.code for example in dataset.examples] == ["1abc", "2abc"]
    assert measured_pk(dataset.examples) == pytest.approx([9.0, 6.0])
    assert {row.code: row.stage for row in dataset.skipped} == {
        "line 6": "index",
        "3abc": "settings",
        "4abc": "files",
        "5abc": "files",
        "9abc": "files",
        "7abc": "ligand",
        "8abc": "graph",
    }
    assert dataset.num_lines == 9 == len(dataset.examples) + len(dataset.skipped)
    assert {code: (entry.year, entry.kind) for code, entry in dataset.entries.items()} == {
        "1abc": (2010, "Kd"),
        "2abc": (2010, "Ki"),
    }


def test_the_table_of_skipped_complexes_has_every_row(mixed: Settings) -> None:
    dataset = load(mixed)
    with open(dataset.cache.folder / "skipped.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["code", "stage", "reason"]
    assert [tuple(row) for row in rows] == [(row.code, row.stage, row.reason) for row in dataset.skipped]


def test_the_audit_has_the_numbers(mixed: Settings) -> None:
    text = audit(load(mixed))
    numbers = {line.rsplit(None, 1)[0].strip(): line.split()[-1] for line in text.splitlines() if line}
    assert numbers["lines in the index"] == "9"
    assert numbers["unreadable lines"] == "1"
    assert numbers["left out by settings"] == "1"
    assert numbers["files missing"] == "3"
    assert numbers["ligand not usable"] == "1"
    assert numbers["no graph"] == "1"
    # Acetamide's 4 atoms, ASP 8, ALA 5, GLY 4 and ZN 1.
    assert "graphs                        2   (built or tried now: 4)" in text
    assert "ligands read as       sdf: 2" in text
    assert "atoms per graph       median 22, largest 22" in text
    assert "6.00 to 9.00, mean 7.50" in text
    assert "4abc (files): no folder of this name" in text
    assert "skipped.csv" in text


def test_an_audit_of_nothing_is_no_error(tmp_path: Path) -> None:
    write_index(tmp_path, ["4abc  2.00  2010  Kd=1nM  // 4abc.pdf (ACM)"])
    assert "files missing               1" in audit(load(small_settings(tmp_path)))


def test_the_structure_setting_decides_which_file_is_needed(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", CODES[:2])
    dataset = load(small_settings(tmp_path, structure="protein"))
    assert dataset.skipped == tuple(Skipped(code, "files", "no protein file") for code in CODES[:2])


@pytest.mark.parametrize(("line", "bound", "error"), [("Kd<1nM", 1, 4.0), ("Kd>1nM", -1, 0.0)])
def test_a_bound_is_trained_on_and_never_judged(mixed: Settings, line: str, bound: int, error: float) -> None:
    index = Path(mixed.data.dataset_path) / "index" / "INDEX_test.2020R1.lst"
    index.write_text(index.read_text().replace("Kd<1nM", line))
    bounded = replace(mixed, data=replace(mixed.data, censored_labels="bound"))
    dataset = load(bounded)
    examples = dataset.subset(["1abc", "3abc"])
    assert [example.bound for example in examples] == [0, bound]
    assert [example.graph.code for example in dataset.judged(["1abc", "3abc"])] == ["1abc"]
    # pK 7 where the label says at least 9 (Kd below 1 nM) is 2 off; where it says at most 9 it is right.
    errors = squared_errors(torch.tensor([9.0, 7.0]), collate(examples))
    assert errors.tolist() == pytest.approx([0.0, error], abs=1e-6)


def test_the_fingerprint_follows_codes_labels_and_bounds(mixed: Settings) -> None:
    dataset = load(mixed)
    first, second = dataset.examples
    variants = [
        (first,),
        (first, replace(second, pk=6.1)),
        (first, replace(second, bound=1)),
        (first, replace(second, graph=replace(second.graph, code="5xyz"))),
    ]
    fingerprints = {replace(dataset, examples=examples).fingerprint() for examples in variants}
    assert len(fingerprints | {dataset.fingerprint()}) == 5
    assert replace(dataset, skipped=()).fingerprint() == dataset.fingerprint()
