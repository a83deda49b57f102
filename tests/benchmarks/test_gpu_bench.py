"""What gpu.py runs on: forms that are here, and the complexes of a folder that the user names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_bench import ON_CPU, Bench
from benchmarks.networks import OURS
from src.data.packing import join, pack
from src.pdbbind.user_table import read_table
from src.system.storage import write_plain
from tests.complexes import write_dataset
from tests.synthetic import random_complex


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(torch.device("cpu"), ON_CPU, tmp_path)


def test_a_form_whose_kernels_cannot_be_had_is_left_out_and_says_why(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: object) -> object:
        raise AttributeError("not in this version")

    monkeypatch.setitem(OURS, "new", ("fast", missing))
    monkeypatch.setitem(OURS, "newer", ("fast", lambda _: None))
    monkeypatch.setitem(OURS, "own", ("lean", lambda _: "kernels"))
    assert {"plain", "keep", "fast", "lean", "own"} == {*bench.forms} - {"fast, Triton"}
    assert bench.why_not_here("new") == "AttributeError: not in this version"
    assert bench.why_not_here("newer")


def test_kernels_are_made_for_a_network_on_the_device(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of Triton refuse a network on the CPU."""
    monkeypatch.setattr(bench, "device", torch.device("meta"))
    monkeypatch.setitem(OURS, "own", ("fast", lambda model: "kernels" if model.out_norm.weight.is_meta else None))
    assert "own" in bench.forms


def test_a_form_that_made_the_gpu_unusable_is_left_out(tmp_path: Path) -> None:
    bench = Bench(torch.device("cpu"), ON_CPU, tmp_path, without=frozenset({"fast"}))
    assert "fast" not in bench.forms
    assert "lean" in bench.forms


def test_graphs_of_the_cache_get_labels_that_can_be_learned(bench: Bench) -> None:
    graphs = [random_complex(number, num_ligand_atoms=5, num_pocket_atoms=15) for number in range(3)]
    write_plain(bench.folder / "graphs-00001.pt", join([pack(graph) for graph in graphs]))
    bench.data = bench.folder
    found = bench.dataset.examples
    assert [example.graph.code for example in found] == ["syn0", "syn1", "syn2"]
    assert all(torch.equal(one.graph.pos, graph.pos) for one, graph in zip(found, graphs, strict=True))
    contacts = [graph.contacts.shape[1] for graph in graphs]
    assert sorted(range(3), key=lambda n: found[n].pk) == sorted(range(3), key=lambda n: contacts[n])
    assert bench.examples(4)[3] is found[0]


def test_of_a_large_folder_some_complexes_are_taken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(bench.folder, ["1abc", "2abc", "3abc", "4abc"])
    bench.data, bench.sizes = bench.folder, replace(ON_CPU, num_complexes=2)
    read: list[str] = []

    def load(data: object, *_: object) -> list[str]:
        index, files = read_table(Path(data.index_file), Path(data.dataset_path))
        read.extend(entry.code for entry in index.entries)
        assert all(files[code].pocket or files[code].protein for code in read)
        return read

    monkeypatch.setattr("benchmarks.gpu_bench.load_dataset", load)
    assert bench.dataset == ["1abc", "3abc"]
