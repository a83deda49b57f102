"""Real complexes in the PDBbind layout; AIDD_REAL_DATA names the folder that holds pdbbind/."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch

import main as training_program
from src.chemistry.atoms import StructureError
from src.chemistry.ligands import read_ligand
from src.chemistry.proteins import read_protein
from src.data.cache import build_cache
from src.data.dataset import load_dataset
from src.data_processing import GraphError
from src.pdbbind.folders import ComplexFiles, locate_complexes
from src.scoring.ensemble import load_scorer
from src.settings import GraphSettings
from tests.complexes import assert_same_graph, read_and_build, small_config, small_settings
from tests.faults.mutated_files import damaged

DAMAGED = 0.01  # of the structure files
DATA = Path(os.environ.get("AIDD_REAL_DATA", "absent")) / "pdbbind"
pytestmark = pytest.mark.skipif("AIDD_REAL_DATA" not in os.environ, reason="AIDD_REAL_DATA is not set")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def codes() -> list[str]:
    found = sorted(path.name for path in DATA.iterdir() if re.fullmatch(r"\w{4}", path.name))
    assert len(found) > 2000
    return found


@pytest.fixture(scope="module")
def with_protein(codes: list[str]) -> list[ComplexFiles]:
    """The complexes that come with the whole protein, besides the pocket."""
    files = locate_complexes(DATA, [path.parent.name for path in DATA.glob("*/*_protein.pdb")])
    return [files[code] for code in sorted(files) if files[code].pocket]


def test_nearly_all_complexes_become_small_graphs(codes: list[str], tmp_path: Path) -> None:
    settings = small_settings(tmp_path)
    chosen = codes[::70]
    files = locate_complexes(DATA, chosen)
    cache = build_cache(
        [files[code] for code in chosen],
        structure="auto",
        graph_settings=settings.graph,
        processing=settings.processing,
    )
    assert len(cache.graphs) >= 0.99 * len(chosen), cache.skipped
    size = sum(path.stat().st_size for path in cache.folder.iterdir())
    assert size / len(cache.graphs) <= 25_000  # bytes
    for graph in cache.graphs.values():
        assert torch.isfinite(graph.pos).all()
        assert 0 < graph.fade.min() <= graph.fade.max() == 1
        assert graph.contacts.shape[1] > graph.num_ligand_atoms
    for code in chosen[::10]:
        assert_same_graph(cache.graphs[code], read_and_build(files[code], settings.graph))


def test_pocket_and_whole_protein_give_the_same_graph(with_protein: list[ComplexFiles], tmp_path: Path) -> None:
    settings = small_settings(tmp_path).graph
    for files in with_protein[::8]:
        pocket = read_and_build(files, settings, "pocket")
        assert_same_graph(read_and_build(files, settings, "protein"), pocket)


def test_reading_near_the_ligand_gives_the_same_graph(with_protein: list[ComplexFiles], tmp_path: Path) -> None:
    for files in with_protein[::40]:
        ligand = read_ligand(files.ligands)
        whole, near = read_protein(files.protein), read_protein(files.protein, near=ligand.atoms.pos)
        assert len(near.atoms) < len(whole.atoms)
    settings = small_settings(tmp_path)
    cache = build_cache(
        with_protein[::40], structure="protein", graph_settings=settings.graph, processing=settings.processing
    )
    for files in with_protein[::40]:
        assert_same_graph(cache.graphs[files.code], read_and_build(files, settings.graph, "protein"))


def test_training_then_scoring_with_protein_and_pocket(with_protein: list[ComplexFiles], tmp_path: Path) -> None:
    wanted = {files.code for files in with_protein[:96:4]}
    (index,) = (DATA / "index").glob("INDEX_*")
    lines = [line for line in index.read_text(encoding="utf-8").splitlines() if line[:4] in wanted]
    (tmp_path / "INDEX_part.2020R1.lst").write_text("\n".join([*lines, ""]), encoding="utf-8")
    changes = {
        **small_config(tmp_path),
        "dataset_path": str(DATA),
        "index_file": str(tmp_path / "INDEX_part.2020R1.lst"),
        "keep_covalent": True,
        "keep_multi_ligands": True,
        "keep_incomplete_ligands": True,
    }
    options = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    assert training_program.main(options) == 0
    scorer = load_scorer(tmp_path / "checkpoints" / "model_best.pth.tar", "cpu")
    for files in with_protein[:96:32]:
        with_pocket, with_whole = (next(scorer.score(p, files.ligands[0])) for p in (files.pocket, files.protein))
        assert with_pocket.pk == pytest.approx(with_whole.pk, abs=1e-5)
        assert 0 < with_pocket.pk < 15


def test_the_index_counts_up(tmp_path: Path) -> None:
    """The first lines of the real index, graphs and rows together."""
    (index,) = (DATA / "index").glob("INDEX_*")
    lines = index.read_text(encoding="utf-8").splitlines()[:60]
    (tmp_path / "INDEX_part.2020R1.lst").write_text("\n".join([*lines, ""]), encoding="utf-8")
    settings = small_settings(tmp_path)
    data = replace(settings.data, dataset_path=str(DATA), index_file=str(tmp_path / "INDEX_part.2020R1.lst"))
    dataset = load_dataset(data, settings.graph, settings.processing)
    assert dataset.num_lines == sum(1 for line in lines if line.strip() and not line.startswith("#"))
    assert dataset.num_lines == len(dataset.examples) + len(dataset.skipped)
    assert all(0 < example.pk < 15 for example in dataset.examples)


def copy_with_damage(root: Path, rng: Random) -> set[str]:
    """The whole folder by hard links, except for 1 % of the structure files; returns the codes of these."""
    (root / "index").mkdir(parents=True)
    for path in (DATA / "index").iterdir():
        shutil.copy(path, root / "index")
    paths = sorted(path for path in DATA.glob("????/*") if path.is_file())
    chosen = set(rng.sample(paths, round(DAMAGED * len(paths))))
    others = [path.read_bytes() for path in rng.sample(paths, 5)]
    for path in paths:
        copy = root / path.parent.name / path.name
        copy.parent.mkdir(exist_ok=True)
        if path in chosen:
            copy.write_bytes(damaged(path.read_bytes(), rng, others)[1])
        else:
            _link(path, copy)
    return {path.parent.name for path in chosen}


def _link(path: Path, copy: Path) -> None:
    try:
        os.link(path, copy)
    except OSError:  # another file system
        shutil.copy(path, copy)


@pytest.mark.slow
@pytest.mark.fault("K9")
def test_of_the_whole_set_with_one_percent_damaged_every_line_is_accounted_for(tmp_path: Path) -> None:
    codes = copy_with_damage(tmp_path / "data", Random(0))
    settings = small_settings(tmp_path, keep_covalent=True, keep_multi_ligands=True, keep_incomplete_ligands=True)
    dataset = load_dataset(settings.data, settings.graph, replace(settings.processing, num_workers=2))
    assert len(codes) > 50
    assert dataset.num_lines == len(dataset.examples) + len(dataset.skipped) > 2800
    used, rows = {example.graph.code for example in dataset.examples}, {row.code: row for row in dataset.skipped}
    assert len(used) + len(rows) == dataset.num_lines
    assert {row.stage for row in dataset.skipped} <= {"settings", "ligand", "protein", "graph"}
    failed = {code for code, row in rows.items() if row.stage != "settings"}
    assert failed & codes
    # A complex that was not damaged fails here if and only if it fails there.
    files = locate_complexes(DATA, failed - codes)
    for code in failed - codes:
        assert not _has_graph(files[code], settings.graph), rows[code]
    assert len(failed - codes) < 0.01 * dataset.num_lines


def _has_graph(files: ComplexFiles, settings: GraphSettings) -> bool:
    try:
        return read_and_build(files, settings).contacts.shape[1] > 0
    except (StructureError, GraphError):
        return False
