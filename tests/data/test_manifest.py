"""Which graph lies in which shard: what a manifest finds, forgets and never does twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from src.data.manifest import Manifest, file_signatures

ABOUT = {"data_processing": "9.9"}


def manifest_of(folder: Path, **about: str) -> Manifest:
    manifest = Manifest(folder, {**ABOUT, **about})
    manifest.read()
    return manifest


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "1abc_ligand.sdf", tmp_path / "1abc_pocket.pdb"]
    for path in paths:
        path.write_text(f"atoms of {path.name}")
    return paths


def record_of(files: list[Path], shard: str = "graphs-00000.pt") -> dict:
    return {"shard": shard, "read_as": "sdf", "notes": [], "sources": file_signatures(files)}


def test_a_folder_without_a_manifest_is_empty_and_no_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = manifest_of(tmp_path)
    assert manifest.records == {}
    assert manifest.next_shard() == "graphs-00000.pt"
    assert caplog.messages == []


def test_a_record_is_found_by_what_its_files_hold(tmp_path: Path, files: list[Path]) -> None:
    manifest = manifest_of(tmp_path)
    manifest.add("1abc", record_of(files))
    manifest.write()
    found = manifest_of(tmp_path)
    assert found.find("1abc", files) == record_of(files)
    assert found.find("1abc", files[::-1]) is None
    assert found.find("1abc", files[:1]) is None
    assert manifest_of(tmp_path, data_processing="10").find("1abc", files) is None
    os.utime(files[0], (1, 1))  # copied, or unpacked once more
    assert found.find("1abc", files) is not None
    files[0].write_text(files[0].read_text().upper())
    assert found.find("1abc", files) is None


def test_the_number_of_a_shard_is_never_used_twice(tmp_path: Path) -> None:
    """Neither after its records were forgotten nor beside a shard of which no manifest speaks."""
    manifest = manifest_of(tmp_path)
    manifest.num_shards = 3
    manifest.write()
    assert manifest_of(tmp_path).next_shard() == "graphs-00003.pt"
    (tmp_path / "graphs-00007.pt").touch()
    assert manifest_of(tmp_path).next_shard() == "graphs-00008.pt"
    (tmp_path / "manifest.json").unlink()
    assert manifest_of(tmp_path).next_shard() == "graphs-00008.pt"


def test_what_was_added_here_stays_until_somebody_else_has_written(tmp_path: Path, files: list[Path]) -> None:
    manifest_of(tmp_path).write()
    manifest = manifest_of(tmp_path)
    manifest.add("1abc", record_of(files))
    manifest.read()
    assert list(manifest.records) == ["1abc"]
    other = manifest_of(tmp_path)
    other.add("2xyz", record_of(files))
    other.write()
    manifest.read()
    assert list(manifest.records) == ["2xyz"]


def test_a_shard_is_superseded_when_no_record_has_its_graph_there(tmp_path: Path, files: list[Path]) -> None:
    manifest = manifest_of(tmp_path)
    manifest.add("1abc", record_of(files, "graphs-00001.pt"))
    names = ("graphs-00000.pt", "graphs-00001.pt", "graphs-1.pt", "my_graphs.pt", "../graphs-00000.pt")
    assert [name for name in names if manifest.is_superseded(name)] == ["graphs-00000.pt"]
    manifest.forget_shard("graphs-00001.pt")
    assert manifest.find("1abc", files) is None
    assert manifest.is_superseded("graphs-00001.pt")
