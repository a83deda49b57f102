"""Many poses in worker processes: the rows of one process, in order, and a molecule that kills costs its own."""

from __future__ import annotations

import faulthandler
import gc
import os
import pickle
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem

import src.scoring.pose_graphs as pose_graphs_module
import src.scoring.screening as screening_module
from src.chemistry.analogue_poses import ModelledPose, Template
from src.chemistry.atoms import StructureError
from src.chemistry.proteins import Protein
from src.graph import ComplexGraph
from src.scoring.ensemble import Ensemble, load_ensemble
from src.scoring.pose_graphs import PoseGraphs, PoseReader
from src.scoring.poses import Pose, iter_poses
from src.scoring.prediction import Prediction
from src.scoring.screening import ScreeningOptions, Tally, read_graphs, screen
from src.scoring.smiles_files import read_smiles_file, read_templates
from src.scoring.trust import HIGH, LOW, NO_TRUST, Trust
from tests.analogues import glycines, ligand
from tests.checkpoints import make_checkpoint
from tests.complexes import pdb_text, sdf_text, small_settings

HERE = ScreeningOptions(num_workers=0)


@pytest.fixture
def ensemble(tmp_path: Path) -> Ensemble:
    return load_ensemble([make_checkpoint(tmp_path / "model.pth.tar", small_settings(tmp_path))], "cpu")


@pytest.fixture
def poses(tmp_path: Path) -> Callable[[int], Iterator[Pose]]:
    """The first poses of a file; one in ten is broken."""
    protein, ligands = tmp_path / "p.pdb", tmp_path / "l.sdf"
    protein.write_text(pdb_text())

    def make(count: int) -> Iterator[Pose]:
        texts = [sdf_text(f"pose{number}", (0.01 * number, 0.0, 0.0)) for number in range(count)]
        texts[7::10] = [text.replace("0.0000", "zero", 1) for text in texts[7::10]]
        ligands.write_text("".join(texts))
        return iter_poses(protein, [ligands])

    return make


def assert_same(found: Sequence[tuple[Pose, Prediction]], expected: Sequence[tuple[Pose, Prediction]]) -> None:
    assert [one.ligand for _, one in found] == [one.ligand for _, one in expected]
    assert [one.failure for _, one in found] == [one.failure for _, one in expected]
    known = [one.pk for _, one in expected if one.pk is not None]
    assert [one.pk for _, one in found if one.pk is not None] == pytest.approx(known, abs=1e-5)


@pytest.mark.fault("J6")
def test_workers_give_the_rows_of_one_process_in_order(
    ensemble: Ensemble, poses: Callable[[int], Iterator[Pose]]
) -> None:
    expected = list(screen(ensemble, poses(60), HERE))
    assert [pose.number for pose, _ in expected] == list(range(1, 61))
    assert [number for number, (_, one) in enumerate(expected) if one.failure] == [7, 17, 27, 37, 47, 57]
    for size in (1, 7, 100):
        assert_same(list(screen(ensemble, poses(60), ScreeningOptions(size, num_workers=0))), expected)
    assert_same(list(screen(ensemble, poses(60), ScreeningOptions(5, num_workers=2))), expected)


def test_with_a_gpu_the_network_runs_in_this_process(
    ensemble: Ensemble, poses: Callable[[int], Iterator[Pose]]
) -> None:
    work = screening_module._Work(ensemble, ensemble.reader(), network_here=True)
    elsewhere = pickle.loads(pickle.dumps(work))
    chunk = list(poses(12))
    read = elsewhere(chunk)
    assert all(isinstance(one, PoseGraphs) for one in read)
    assert all("edges" in vars(graph) for one in read for graph in one.graphs)
    assert_same(list(zip(chunk, work.begin(chunk, read)(), strict=True)), list(screen(ensemble, poses(12), HERE)))


def test_a_chunk_is_read_when_the_next_one_has_been_given_to_the_gpu(
    ensemble: Ensemble, poses: Callable[[int], Iterator[Pose]], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {pose.number: prediction for pose, prediction in screen(ensemble, poses(10), HERE)}
    events: list[tuple[str, int]] = []

    def begin(_self: Ensemble, chunk: Sequence[Pose], _read: Sequence[PoseGraphs]) -> Callable[[], list[Prediction]]:
        first = chunk[0].number
        events.append(("begin", first))
        return lambda: events.append(("read", first)) or [expected[pose.number] for pose in chunk]

    monkeypatch.setattr(Ensemble, "begin", begin)
    monkeypatch.setattr(Ensemble, "device", torch.device("cuda"))
    found = list(screen(ensemble, poses(10), ScreeningOptions(4, num_workers=0)))
    assert_same(found, [(pose, expected[pose.number]) for pose, _ in found])
    assert [pose.number for pose, _ in found] == list(range(1, 11))
    assert [kind for kind, _ in events] == ["begin", "begin", "read", "begin", "read", "read"]
    assert [first for kind, first in events if kind == "read"] == [1, 5, 9]


class Deadly(PoseReader):
    """Ends its process at some poses, as a crash in native code does."""

    def read(self, poses: Sequence[Pose], **options: bool) -> list[PoseGraphs]:
        if any(pose.number in (4, 9) for pose in poses):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(poses, **options)


@pytest.mark.fault("I3")
@pytest.mark.skipif(os.name != "posix", reason="POSIX")
@pytest.mark.parametrize("options", [ScreeningOptions(4, num_workers=1), ScreeningOptions()])
def test_a_molecule_that_kills_its_worker_costs_its_own_row(
    ensemble: Ensemble,
    poses: Callable[[int], Iterator[Pose]],
    monkeypatch: pytest.MonkeyPatch,
    options: ScreeningOptions,
) -> None:
    expected = list(screen(ensemble, poses(12), HERE))
    monkeypatch.setattr(Ensemble, "reader", lambda self, **options: Deadly(self.graph_settings, **options))
    found = list(screen(ensemble, poses(12), options))
    assert [pose.number for pose, _ in found] == list(range(1, 13))
    for number in (4, 9):
        one = found[number - 1][1]
        assert one.pk is None
        assert "SIGKILL" in one.failure
        assert (one.ligand, one.molecule) == (f"pose{number - 1}", number)
    kept = [number for number in range(12) if number + 1 not in (4, 9)]
    assert_same([found[number] for number in kept], [expected[number] for number in kept])


@pytest.mark.fault("I3")
@pytest.mark.skipif(sys.platform != "linux", reason="a copy of this process has the patch")
def test_a_molecule_whose_posing_ends_the_process_costs_its_own_row(
    tmp_path: Path, ensemble: Ensemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As RDKit does by an assertion in its C++."""
    mol, here, real = ligand(), os.getpid(), pose_graphs_module.pose_analogue

    def pose(smiles: str, templates: Sequence[Template]) -> ModelledPose:
        if "F" in smiles:
            assert os.getpid() != here
            faulthandler.disable()  # no stack of a crash that is wanted
            os.abort()
        return real(smiles, templates)

    monkeypatch.setattr(pose_graphs_module, "pose_analogue", pose)
    (tmp_path / "p.pdb").write_text(glycines(np.array([0.0, 0.0, 4.0])))
    (tmp_path / "crystal.sdf").write_text(Chem.MolToMolBlock(mol) + "$$$$\n")
    (tmp_path / "a.smi").write_text("NC(=N)c1ccccc1 a\nNC(=N)c1ccc(F)cc1 b\nNC(=N)c1ccc(C)cc1 c\n")
    options = ScreeningOptions(templates=read_templates([tmp_path / "crystal.sdf"]))
    poses = read_smiles_file(tmp_path / "p.pdb", tmp_path / "a.smi").poses()
    found = list(screen(ensemble, poses, options))
    assert [(pose.title, one.pk is None) for pose, one in found] == [("a", False), ("b", True), ("c", False)]
    assert "worker died with signal SIGABRT" in found[1][1].failure
    assert [pose.record.kind for pose, _ in found] == ["sdf", "smiles", "sdf"]


def test_a_protein_that_cannot_be_read_is_an_error_of_one_receptor_and_a_row_of_many(
    tmp_path: Path, ensemble: Ensemble
) -> None:
    (tmp_path / "l.sdf").write_text(sdf_text())
    (tmp_path / "p.pdb").write_text(pdb_text())
    proteins = [tmp_path / "absent.pdb", tmp_path / "p.pdb"]
    poses = [pose for protein in proteins for pose in iter_poses(protein, [tmp_path / "l.sdf"])]
    for workers in (0, 1):
        with pytest.raises(StructureError, match=r"absent\.pdb"):
            list(screen(ensemble, poses, ScreeningOptions(num_workers=workers)))
    (_, failed), (_, scored) = screen(ensemble, poses, ScreeningOptions(num_workers=0, one_receptor=False))
    assert "absent.pdb" in failed.failure
    assert scored.pk is not None


def test_a_receptor_is_read_once(
    ensemble: Ensemble, poses: Callable[[int], Iterator[Pose]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = pose_graphs_module.read_protein, []

    def read(path: Path, *, near: np.ndarray | None, radius: float) -> Protein:
        count.append(near)
        return real(path, near=near, radius=radius)

    monkeypatch.setattr(pose_graphs_module, "read_protein", read)
    assert len(list(screen(ensemble, poses(60), HERE))) == 60
    assert count == [None]
    count.clear()
    work = screening_module._Work(ensemble, ensemble.reader(), network_here=True)
    work.num_all = 5
    assert len(work(list(poses(5)))) == 5
    assert len(count) == 1
    assert len(count[0]) == 20  # only what is near the poses is parsed: 5 of 4 atoms


@pytest.mark.parametrize("num_workers", [0, 1])
def test_of_many_poses_only_a_few_are_in_memory(
    ensemble: Ensemble, poses: Callable[[int], Iterator[Pose]], num_workers: int
) -> None:
    most = 0
    for number, _ in enumerate(screen(ensemble, poses(400), ScreeningOptions(8, num_workers))):
        if number % 40 == 39:
            gc.collect()
            kept = Counter(type(one) for one in gc.get_objects())
            most = max(most, kept[Pose], kept[ComplexGraph], kept[Prediction])
    assert number == 399
    assert 1 <= most <= 4 * 8


def test_few_poses_wait_for_no_process_that_loads_libraries(
    ensemble: Ensemble, poses: Callable[[int], Iterator[Pose]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def run(work: object, tasks: object, **options: object) -> Iterator:
        asked.append((options["num_workers"], options["forked"]))
        return iter(())

    monkeypatch.setattr(screening_module, "run_supervised", run)
    monkeypatch.setattr(screening_module, "FEW_POSES", 10)
    for count, workers in ((10, None), (11, None), (2, 3), (2, 0)):
        list(screen(ensemble, poses(count), ScreeningOptions(num_workers=workers)))
    cores = min(screening_module.usable_cores(), screening_module.MAX_WORKERS)
    assert asked == [(cores, True), (cores, False), (3, False)]


@pytest.mark.fault("I3", "F5")
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process of its own reads them")
def test_one_pose_is_read_and_scored_by_a_copy_of_this_process(
    ensemble: Ensemble, poses: Callable[[int], Iterator[Pose]], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(screen(ensemble, poses(1), HERE))
    monkeypatch.setattr(screening_module, "load_ensemble", lambda *_: pytest.fail("loaded again"))
    assert_same(list(screen(ensemble, poses(1), ScreeningOptions())), expected)
    here = os.getpid()

    def predict(*_: object) -> None:
        assert os.getpid() != here
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(Ensemble, "predict", predict)
    ((_, lost),) = screen(ensemble, poses(1), ScreeningOptions())
    assert "worker died with signal SIGKILL" in lost.failure


# What is said at the end


def prediction(name: str, pk: float | None, trust: Trust = NO_TRUST) -> Prediction:
    return Prediction(name, "p.pdb", "l.sdf", pk, (), "" if pk else "failed", trust=trust)


def test_the_best_are_ranked_and_no_more_are_kept() -> None:
    pose, tally = Pose(Path("p"), Path("l"), 1, None), Tally(3)
    for name, pk in {"a": 5.0, "b": None, "c": 7.0, "d": 6.0, "e": 7.0, "f": 4.0, "g": 6.5}.items():
        tally.add(pose, prediction(name, pk))
        assert len(tally._best) <= 3
    assert [one.ligand for _, one in tally.best] == ["c", "e", "g"]  # of equal scores the earlier first
    assert tally.text(3.5).startswith("6 of 7 poses scored in 3.5 s, 2.0 a second")


def test_it_is_said_once_how_far_to_trust_how_many() -> None:
    pose, tally = Pose(Path("p"), Path("l"), 1, None), Tally()
    for word in (LOW, HIGH, LOW):
        tally.add(pose, prediction("a", 5.0, Trust(word, "x")))
    tally.add(pose, prediction("a", None))
    assert tally.text(1.0).endswith("trust in them: high 1, medium 0, low 2 (columns trust and trust_reason)")
    nothing = Tally()
    nothing.add(pose, prediction("a", None))
    assert "trust" not in nothing.text(1.0)


# Graphs alone


@pytest.mark.parametrize("num_workers", [0, None])
def test_graphs_are_read_as_for_a_score(
    ensemble: Ensemble, poses: Callable[[int], Iterator[Pose]], num_workers: int | None
) -> None:
    found = list(read_graphs(ensemble, poses(12), ScreeningOptions(5, num_workers=num_workers)))
    assert [pose.number for pose, _ in found] == list(range(1, 13))
    assert [bool(one.failure) for _, one in found] == [number == 7 for number in range(12)]
    expected = ensemble.reader().read(list(poses(12)))
    for (_, one), other in zip(found, expected, strict=True):
        assert [graph.pos.tolist() for graph in one.graphs] == [graph.pos.tolist() for graph in other.graphs]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker loads all libraries first")
def test_a_molecule_that_kills_its_worker_has_no_graph_and_a_reason(
    ensemble: Ensemble, poses: Callable[[int], Iterator[Pose]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ensemble, "reader", lambda self, **options: Deadly(self.graph_settings, **options))
    found = [one for _, one in read_graphs(ensemble, poses(6), ScreeningOptions(4))]
    assert [bool(one.graphs) for one in found] == [number != 4 for number in range(1, 7)]
    assert "SIGKILL" in found[3].failure
