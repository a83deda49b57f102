"""No input file can stop a run: damaged files give typed errors in bounded time, and every index line is counted."""

from __future__ import annotations

import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from rdkit import Chem

from src.chemistry.atoms import StructureError
from src.chemistry.ligands import Ligand, LigandError, iter_ligands, read_ligand
from src.chemistry.proteins import read_protein
from src.data import cache as cache_module
from src.data.audit import audit
from src.data.dataset import Dataset, load_dataset
from src.data_processing import build_graph
from src.pdbbind.affinity import PDBbindError
from src.pdbbind.folders import ComplexFiles
from src.pdbbind.index import read_index
from src.scoring.ensemble import Scorer, load_scorer
from src.scoring.prediction import Prediction
from src.similarity.splits import split_codes
from src.system.workers import run_supervised
from tests.checkpoints import make_checkpoint
from tests.complexes import GRAPH_SETTINGS, sdf_text, small_settings, write_dataset
from tests.faults.mutated_files import COUNTS, LIGANDS, PROTEINS, MutatedFile, mutated_files, whole_files

SECONDS = 2.0  # of processor time for one file, so that a busy machine counts for nothing
TIMEOUT_S = 5.0  # for a worker that hangs; a mutated file takes milliseconds
QUICK = 10  # of 500 files each tenth


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], bytes]:
    return whole_files(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    folder = tmp_path_factory.mktemp("scorer")
    return load_scorer(make_checkpoint(folder / "model.pth.tar", small_settings(folder)), "cpu")


def attempt(file: MutatedFile, name: str, work: Callable[[], Any], *typed: type[Exception]) -> Any:
    """What work gives; None where it raises one of the typed errors, which must name the file."""
    begun = time.process_time()
    message = name
    try:
        result = work()
    except typed as error:
        result, message = None, str(error)
    assert time.process_time() - begun < SECONDS, file.faults
    assert name in message, message
    return result


quick_and_slow = pytest.mark.parametrize("every", [QUICK, pytest.param(1, marks=pytest.mark.slow)])


def files_of(whole: dict, every: int, *kinds: str) -> list[MutatedFile]:
    return [file for file in mutated_files(whole, every=every) if file.kind in kinds]


# The readers and the builder


@pytest.mark.fault("K9")
def test_the_mutated_files_are_500_and_always_the_same(whole: dict) -> None:
    files = mutated_files(whole)
    assert len(files) == sum(COUNTS.values()) == 500
    assert len(mutated_files(whole, every=QUICK)) == 50
    assert mutated_files(whole, every=25) == [f for kind in COUNTS for f in files_of(whole, 1, kind)[::25]]
    assert sum(file.content == whole[file.kind, file.code] for file in files) < 5
    assert len({file.content for file in files}) > 490


@quick_and_slow
@pytest.mark.fault("K9", "H17")
def test_a_damaged_protein_is_read_or_refused(whole: dict, tmp_path: Path, every: int) -> None:
    ligand_path = tmp_path / "ligand.sdf"
    graphs = []
    for number, file in enumerate(files_of(whole, every, *PROTEINS)):
        path = file.write(tmp_path, str(number))
        ligand_path.write_bytes(whole["sdf", file.code])
        ligand = read_ligand([ligand_path])
        for near in (None, ligand.atoms.pos):
            protein = attempt(file, path.name, partial(read_protein, path, near=near), StructureError)
            graphs.append(protein and build_graph(file.code, ligand, protein, GRAPH_SETTINGS)[0])
    assert all(np.isfinite(graph.pos.numpy()).all() for graph in graphs if graph)
    assert 0 < graphs.count(None) < len(graphs)


def read_one(path: Path) -> Ligand:
    return read_ligand([path])


def read_all(path: Path) -> list[Ligand | LigandError]:
    return list(iter_ligands(path))


@quick_and_slow
@pytest.mark.fault("K9", "I9")
def test_a_damaged_ligand_is_read_or_refused(whole: dict, tmp_path: Path, every: int) -> None:
    protein_path = tmp_path / "protein.pdb"
    firsts = []
    for number, file in enumerate(files_of(whole, every, *LIGANDS)):
        path = file.write(tmp_path, str(number))
        protein_path.write_bytes(whole["pdb", file.code])
        firsts.append(attempt(file, path.name, partial(read_one, path), LigandError))
        every_one = attempt(file, path.name, partial(read_all, path), LigandError) or []
        for ligand in every_one:
            if isinstance(ligand, Ligand):
                assert np.isfinite(ligand.atoms.pos).all()
                build_graph(file.code, ligand, read_protein(protein_path, near=ligand.atoms.pos), GRAPH_SETTINGS)
    assert 0 < firsts.count(None) < len(firsts)


def content_lines(content: bytes) -> int:
    """Lines that are neither empty nor a comment, counted apart from the reader."""
    lines = [line.decode("latin-1").strip() for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    return sum(bool(line) and not line.startswith("#") for line in lines)


@quick_and_slow
@pytest.mark.fault("K9", "G7")
def test_every_line_of_a_damaged_index_is_an_entry_or_a_bad_line(whole: dict, tmp_path: Path, every: int) -> None:
    for number, file in enumerate(files_of(whole, every, "index")):
        path = file.write(tmp_path, str(number))
        index = attempt(file, path.name, partial(read_index, path), PDBbindError)
        if index:
            assert len(index.entries) + len(index.bad_lines) == content_lines(file.content)
            assert all(0 <= entry.pk <= 15 for entry in index.entries)


# The functions of predict.py


def score(scorer: Scorer, protein: Path, ligand: Path) -> list[Prediction]:
    return list(scorer.score(protein, ligand))


@quick_and_slow
@pytest.mark.fault("K9")
def test_a_damaged_file_is_scored_or_named(whole: dict, tmp_path: Path, scorer: Scorer, every: int) -> None:
    kinds: set[str] = set()
    for number, file in enumerate(files_of(whole, every, *PROTEINS, *LIGANDS)):
        protein, ligand = tmp_path / f"whole{number}.pdb", tmp_path / f"whole{number}.sdf"
        protein.write_bytes(whole["pdb", file.code])
        ligand.write_bytes(whole["sdf", file.code])
        path = file.write(tmp_path, str(number))
        protein, ligand = (path, ligand) if file.kind in PROTEINS else (protein, path)
        rows = attempt(file, path.name, partial(score, scorer, protein, ligand), StructureError)
        assert rows is None or rows
        kinds |= {"refused"} if rows is None else set()
        for row in rows or ():
            assert (row.pk is None) == bool(row.failure)
            assert row.failure or math.isfinite(row.pk)
            kinds.add("failed" if row.failure else "scored")
    assert kinds >= {"refused", "scored"}


@pytest.mark.fault("H17", "I9")
@pytest.mark.parametrize("kind", ["pdb", "mmcif", "sdf", "sdf of v3000", "mol2"])
def test_a_file_cut_anywhere_is_read_or_refused(whole: dict, tmp_path: Path, kind: str) -> None:
    content = whole[kind, "d001"]
    refused = []
    for length in range(0, len(content), 200):
        file = MutatedFile(kind, "d001", (f"cut at {length}",), content[:length])
        path = file.write(tmp_path, "cut")
        read = read_protein if kind in PROTEINS else read_one
        if attempt(file, path.name, partial(read, path), StructureError) is None:
            refused.append(length)
    assert 0 in refused
    assert kind == "pdb" or len(refused) > 3  # a PDB file that ends between two lines is a shorter protein


# Preprocessing


def write_mutated(root: Path, whole: dict, files: list[MutatedFile], healthy: list[str]) -> Path:
    """A data set with one complex for each damaged file, healthy ones, one far ligand and lines that cannot be used."""
    members = [(f"m{number:03d}", file) for number, file in enumerate(files)]
    members += [(code, MutatedFile("sdf", "d001", (), whole["sdf", "d001"])) for code in healthy]
    for code, file in members:
        (root / code).mkdir(parents=True)
        for kind, name in (("pdb", f"{code}_protein"), ("sdf", f"{code}_ligand")):
            if (file.kind in PROTEINS) != (kind in PROTEINS):
                (root / code / f"{name}.{kind}").write_bytes(whole[kind, file.code])
        file.write(root / code, f"{code}_protein" if file.kind in PROTEINS else f"{code}_ligand")
    (root / "far0").mkdir()
    shutil.copy(root / healthy[0] / f"{healthy[0]}_protein.pdb", root / "far0" / "far0_protein.pdb")
    (root / "far0" / "far0_ligand.sdf").write_text(sdf_text(shift=(500.0, 0.0, 0.0)))
    lines = [f"{code}  2.00  2010  Kd=1nM  // {code}.pdf (LIG)" for code in [*dict(members), "far0", "none"]]
    lines += ["# a comment", "", "m000 2.0 2010 Kd=9nM", "x 2.0 2010 Kd=1,2nM", "../../etc 2.0 2010 Kd=1nM", "short"]
    path = root / "INDEX_mutated.lst"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def load(folder: Path, root: Path, index: Path, **processing: object) -> Dataset:
    settings = small_settings(folder)
    data = replace(settings.data, dataset_path=str(root), index_file=str(index))
    return load_dataset(data, settings.graph, replace(settings.processing, **processing))


def assert_counted(dataset: Dataset, index: Path) -> None:
    """Every line of the index is a graph or a row, no complex is both, and the report's counts add up."""
    assert dataset.num_lines == content_lines(index.read_bytes())
    assert dataset.num_lines == len(dataset.examples) + len(dataset.skipped)
    codes = [example.graph.code for example in dataset.examples] + [row.code for row in dataset.skipped]
    assert len(codes) == len(set(codes))
    report = audit(dataset).splitlines()
    lines, *lost, graphs = report[: 1 + next(n for n, line in enumerate(report) if line.startswith("graphs"))]
    assert int(lines.split()[-1]) == sum(int(line.split()[-1]) for line in lost) + int(graphs.split()[1])


def segfault() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave() -> None:
    os._exit(3)


def hang() -> None:
    time.sleep(120)


def fill_memory() -> None:
    bytearray(2**33)


def raise_bug() -> None:
    raise KeyError("a bug")


POISON: dict[str, tuple[Callable[[], None], str]] = {
    "hang": (hang, f"took longer than {TIMEOUT_S:g} s"),
    "segv": (segfault, "worker died with signal SIGSEGV"),
    "exit": (leave, "worker exited with code 3"),
    "hogs": (fill_memory, "ran out of memory (limit 4 GB)"),
    "bugs": (raise_bug, "unexpected KeyError at stage ligand: 'a bug'"),
}


def build_poisoned(build: Callable[[ComplexFiles], Any], files: ComplexFiles) -> Any:
    """What a worker runs in the place of `build`: RDKit does its worst on the ligands of POISON."""
    real = Chem.MolFromMolBlock
    if files.code in POISON:
        Chem.MolFromMolBlock = lambda *_, **__: POISON[files.code][0]()
    try:
        return build(files)
    finally:
        Chem.MolFromMolBlock = real


def run_poisoned(build: Callable, tasks: Sequence[ComplexFiles], **limits: Any) -> Iterator[tuple[int, Any]]:
    return run_supervised(partial(build_poisoned, build), tasks, **limits)


@pytest.mark.fault("F5", "I11", "J1", "K9")
@pytest.mark.parametrize(
    ("every", "poison"), [(QUICK, ["hang"]), pytest.param(1, list(POISON), marks=pytest.mark.slow)]
)
def test_preprocessing_gives_every_damaged_complex_its_row(
    whole: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, poison: list[str]
) -> None:
    files = files_of(whole, every, *PROTEINS, *LIGANDS)
    index = write_mutated(tmp_path / "data", whole, files, ["good", *poison])
    monkeypatch.setattr(cache_module, "run_supervised", run_poisoned)
    dataset = load(tmp_path, tmp_path / "data", index, num_workers=len(poison[:2]), timeout_s=TIMEOUT_S, memory_gb=4.0)
    assert_counted(dataset, index)
    rows = {row.code: row for row in dataset.skipped}
    assert {code: (rows[code].stage, rows[code].reason) for code in poison} == {
        code: ("worker", POISON[code][1]) for code in poison
    }
    stages = {row.stage for code, row in rows.items() if code.startswith("m")}
    assert stages <= {"ligand", "protein", "graph"}  # typed errors, each at its stage
    assert {rows["far0"].stage, rows["none"].stage} == {"graph", "files"}
    used = {example.graph.code for example in dataset.examples}
    assert "good" in used
    assert len(used) > len(files) / 10 < len(stages) + len(rows)


@quick_and_slow
@pytest.mark.fault("K9")
def test_a_data_set_with_a_damaged_index_is_counted(whole: dict, tmp_path: Path, every: int) -> None:
    root = tmp_path / "data"
    for code in {code for _, code in whole}:
        (root / code).mkdir(parents=True)
        (root / code / f"{code}_protein.pdb").write_bytes(whole["pdb", code])
        (root / code / f"{code}_ligand.sdf").write_bytes(whole["sdf", code])
    num_counted = 0
    for number, file in enumerate(files_of(whole, every, "index")):
        index = file.write(tmp_path, str(number))
        dataset = attempt(file, index.name, partial(load, tmp_path, root, index), PDBbindError)
        if dataset:
            assert_counted(dataset, index)
            num_counted += 1
    assert num_counted > 1


@pytest.mark.fault("G12")
def test_the_order_of_the_index_does_not_change_the_split(tmp_path: Path) -> None:
    index = write_dataset(tmp_path / "data", [f"1a{number:02}" for number in range(20)])
    lines = index.read_text().splitlines()
    splits = []
    for _ in range(2):
        entries = read_index(index).entries
        splits.append(split_codes([entry.code for entry in entries], small_settings(tmp_path).data, seed=0))
        Random(0).shuffle(lines)
        index.write_text("\n".join(lines))
    assert [entry.code for entry in read_index(index).entries] != sorted(entry.code for entry in entries)
    assert splits[0] == splits[1]
