"""Graphs on disk: equal to built ones, rebuilt only where something changed, never trusted when damaged."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from src.chemistry.atoms import StructureError
from src.data import cache as cache_module
from src.data.cache import GraphCache, build_cache, other_caches, protein_file
from src.pdbbind.folders import ComplexFiles, locate_complexes
from src.settings import Settings
from src.system.locks import in_turn
from src.system.storage import StorageError, read_plain, write_plain
from src.system.workers import WorkerFault
from tests.complexes import (
    RESIDUES,
    assert_same_graph,
    pdb_text,
    read_and_build,
    sdf_text,
    small_settings,
    write_complex,
    write_dataset,
)
from tests.training_runs import Run, finish, start

CODES = ("1aaa", "1bbb", "1ccc", "1ddd", "1eee")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a data set of five complexes with pockets of one to five residues."""
    for number, code in enumerate(CODES):
        write_complex(tmp_path / "data", code, shift=(0.1 * number, 0.0, 0.0))
        pocket_path(tmp_path, code).write_text(pdb_text(RESIDUES[: number + 1]))
    return small_settings(tmp_path)


def pocket_path(tmp_path: Path, code: str) -> Path:
    return tmp_path / "data" / code / f"{code}_pocket.pdb"


def ligand_path(tmp_path: Path, code: str) -> Path:
    return tmp_path / "data" / code / f"{code}_ligand.sdf"


def located(settings: Settings, codes: Sequence[str] = CODES) -> list[ComplexFiles]:
    files = locate_complexes(Path(settings.data.dataset_path), codes)
    return [files[code] for code in codes]


def build(settings: Settings, codes: Sequence[str] = CODES, **changes: object) -> GraphCache:
    processing = replace(settings.processing, **changes)
    return build_cache(located(settings, codes), structure="auto", graph_settings=settings.graph, processing=processing)


def assert_whole(cache: GraphCache, settings: Settings) -> None:
    """Every complex has its graph, equal to what the builder makes of its files now."""
    assert list(cache.graphs) == list(CODES)
    for files in located(settings):
        assert_same_graph(cache.graphs[files.code], read_and_build(files, settings.graph))


# Equal graphs


def test_cached_graphs_equal_built_ones_bit_for_bit(settings: Settings) -> None:
    first, second = build(settings), build(settings)
    assert (first.num_built, second.num_built) == (5, 0)
    for cache in (first, second):
        assert_whole(cache, settings)
        assert cache.skipped == ()
        assert cache.ligands_read_as == dict.fromkeys(CODES, "sdf")


def test_graphs_without_bonds_pairs_and_contacts_survive(settings: Settings, tmp_path: Path) -> None:
    ligand_path(tmp_path, "1aaa").write_text(sdf_text(atoms=[("C", 0.0, 0.0, 0.0)], bonds=[]))
    pocket_path(tmp_path, "1aaa").write_text(pdb_text([("ALA", "A", 1, [("CA", "C", 3.0, 0.0, 0.0)])]))
    for cache in (build(settings), build(settings)):
        graph = cache.graphs["1aaa"]
        assert (graph.num_atoms, graph.num_edges) == (2, 2)
        assert graph.ligand_bonds.shape == graph.protein_bonds.shape == graph.near_pairs.shape == (2, 0)
        assert_whole(cache, settings)


@pytest.mark.fault("F14")
def test_two_workers_write_the_same_bytes_as_none(settings: Settings, tmp_path: Path) -> None:
    alone = build(settings).folder
    shared = build(settings, processed_data_dir=str(tmp_path / "other"), num_workers=2).folder
    names = sorted(os.listdir(alone))
    assert names == sorted(os.listdir(shared)) == ["graphs-00000.pt", "manifest.json"]
    for name in names:
        assert (alone / name).read_bytes() == (shared / name).read_bytes()


def test_the_order_in_which_workers_finish_does_not_matter(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "SHARD_SIZE", 2)

    def out_of_order(function, tasks, **_options):
        for index in (4, 1, 0, 3, 2):
            yield index, function(tasks[index])

    usual = build(settings).folder
    monkeypatch.setattr(cache_module, "run_supervised", out_of_order)
    other = build(settings, processed_data_dir=str(tmp_path / "other")).folder
    for name in ("graphs-00000.pt", "graphs-00001.pt", "graphs-00002.pt", "manifest.json"):
        assert (usual / name).read_bytes() == (other / name).read_bytes()


# Only what is missing


def test_new_complexes_are_added(settings: Settings) -> None:
    assert build(settings, CODES[:2]).num_built == 2
    assert build(settings).num_built == 3
    assert_whole(build(settings), settings)


def test_fewer_complexes_are_a_part_of_the_cache(settings: Settings) -> None:
    build(settings)
    part = build(settings, ["1ddd", "1bbb"])
    assert (part.num_built, list(part.graphs)) == (0, ["1ddd", "1bbb"])
    assert build(settings).num_built == 0


@pytest.mark.fault("F3")
@pytest.mark.parametrize(("path_of", "old", "new"), [(pocket_path, "-2.2", "-2.3"), (ligand_path, "1.1000", "1.1500")])
def test_a_changed_file_of_the_same_size_rebuilds_its_complex_alone(
    settings: Settings, tmp_path: Path, path_of: Callable[[Path, str], Path], old: str, new: str
) -> None:
    before = build(settings).graphs
    path = path_of(tmp_path, "1ccc")
    size = path.stat().st_size
    path.write_text(path.read_text().replace(old, new))
    assert path.stat().st_size == size
    after = build(settings)
    assert after.num_built == 1
    assert not torch.equal(after.graphs["1ccc"].pos, before["1ccc"].pos)
    assert_whole(after, settings)


@pytest.mark.fault("F3")
def test_touching_copying_or_moving_files_rebuilds_nothing(settings: Settings, tmp_path: Path) -> None:
    build(settings)
    os.utime(pocket_path(tmp_path, "1aaa"), (1, 1))
    ligand_path(tmp_path, "1bbb").write_bytes(ligand_path(tmp_path, "1bbb").read_bytes())
    assert build(settings).num_built == 0
    shutil.move(tmp_path / "data", tmp_path / "elsewhere é")
    moved = replace(settings, data=replace(settings.data, dataset_path=str(tmp_path / "elsewhere é")))
    assert build(moved).num_built == 0


@pytest.mark.fault("F3")
def test_a_file_that_comes_or_goes_rebuilds_its_complex(settings: Settings, tmp_path: Path) -> None:
    build(settings)
    os.rename(pocket_path(tmp_path, "1aaa"), tmp_path / "data" / "1aaa" / "1aaa_protein.pdb")
    cache = build(settings)
    assert cache.num_built == 1
    assert_whole(cache, settings)


def test_a_source_file_that_was_deleted_is_a_row(settings: Settings, tmp_path: Path) -> None:
    files = located(settings)  # as a table of one's own names files, whether they are there or not

    def build_these() -> GraphCache:
        return build_cache(files, structure="auto", graph_settings=settings.graph, processing=settings.processing)

    build_these()
    ligand_path(tmp_path, "1bbb").unlink()
    cache = build_these()
    assert [(row.code, row.stage) for row in cache.skipped] == [("1bbb", "files")]
    assert cache.num_built == 1


@pytest.mark.parametrize("function", ["stat", "read_bytes"])
def test_a_source_file_that_cannot_be_read_any_more_is_a_row(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """Mode 000, or a drive that drops out; a file of another time has its content looked at."""
    build(settings)
    gone, files, real = ligand_path(tmp_path, "1bbb"), located(settings), getattr(Path, function)
    os.utime(gone, (1, 1))

    def failing(path: Path, *arguments: object, **options: object) -> object:
        if path == gone:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, function, failing)
        cache = build_cache(files, structure="auto", graph_settings=settings.graph, processing=settings.processing)
    assert [(row.code, row.stage) for row in cache.skipped] == [("1bbb", "files")]
    assert cache.lost == ("1bbb",)
    assert "Permission denied" in cache.skipped[0].reason
    assert_whole(build(settings), settings)


# Interruptions


@pytest.mark.parametrize(("shard_size", "num_kept"), [(2, 3), (256, 3)])
def test_what_was_built_before_ctrl_c_is_kept(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, shard_size: int, num_kept: int
) -> None:
    monkeypatch.setattr(cache_module, "SHARD_SIZE", shard_size)
    real = cache_module._build_one

    def interrupted(files: ComplexFiles, **options: object) -> object:
        if files.code == "1ddd":
            raise KeyboardInterrupt
        return real(files, **options)

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "_build_one", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build(settings)
    cache = build(settings)
    assert cache.num_built == len(CODES) - num_kept
    assert_whole(cache, settings)


class Killed(BaseException):
    """Stands for a kill: nothing is written after it."""


@pytest.mark.fault("F1")
@pytest.mark.parametrize(("moment", "num_kept"), [(1, 0), (2, 0), (3, 2), (4, 2), (5, 4)])
def test_a_kill_at_any_write_loses_one_shard_at_most(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, moment: int, num_kept: int
) -> None:
    """Writes 1, 3 and 5 are shards of two graphs, 2, 4 and 6 the manifest that names them."""
    monkeypatch.setattr(cache_module, "SHARD_SIZE", 2)
    replaced = []
    real = os.replace

    def replace_or_die(source: Path, target: Path) -> None:
        replaced.append(target)
        if len(replaced) >= moment:
            raise Killed
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_or_die)
        with pytest.raises(Killed):
            build(settings)
    cache = build(settings)
    assert cache.num_built == len(CODES) - num_kept
    assert_whole(cache, settings)


@pytest.mark.fault("F1")
def test_remains_of_a_killed_process_are_removed_and_nothing_else(settings: Settings) -> None:
    folder = build(settings, CODES[:4]).folder
    remains = [".graphs-00001.pt.0123.tmp", ".manifest.json.4567.tmp", "graphs-00007.pt"]
    others = ["notes.txt", "graphs-mine.pt", ".skipped.csv.89ab.tmp"]  # the last may be written at this moment
    for name in [*remains, *others]:
        (folder / name).write_text("x")
    build(settings)
    assert set(os.listdir(folder)) == {"manifest.json", "graphs-00000.pt", "graphs-00008.pt", *others}
    assert_whole(build(settings), settings)


# Several data sets and several processes


def test_data_sets_with_the_same_codes_share_a_folder(settings: Settings, tmp_path: Path) -> None:
    other = replace(settings, data=replace(settings.data, dataset_path=str(tmp_path / "other")))
    for code in CODES:
        write_complex(tmp_path / "other", code, shift=(0.0, 0.3, 0.0))
    for one in (settings, other):
        assert build(one).num_built == len(CODES)
    for one in (settings, other, settings):
        cache = build(one)
        assert cache.num_built == 0
        assert_whole(cache, one)


def test_a_shard_without_a_graph_that_is_still_wanted_is_deleted(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.data.manifest.MAX_VARIANTS", 1)
    folder = build(settings).folder
    for code in CODES:
        write_complex(tmp_path / "other", code, shift=(0.0, 0.3, 0.0))
    other = replace(settings, data=replace(settings.data, dataset_path=str(tmp_path / "other")))
    build(other, CODES[:4])
    assert sorted(os.listdir(folder)) == ["graphs-00000.pt", "graphs-00001.pt", "manifest.json"]  # 1eee is wanted
    build(other)
    assert sorted(os.listdir(folder)) == ["graphs-00001.pt", "graphs-00002.pt", "manifest.json"]
    assert_whole(build(other), other)


@pytest.mark.fault("F4")
def test_two_processes_build_no_graph_twice(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads stand for the processes: a lock belongs to whoever opened the file."""
    built, has_begun, second_waits = [], threading.Event(), threading.Event()
    real_build, real_info = cache_module._build_one, logging.Logger.info

    def slow(files: ComplexFiles, **options: object) -> object:
        built.append(files.code)
        has_begun.set()
        assert second_waits.wait(30)
        return real_build(files, **options)

    def info(logger: logging.Logger, text: str, *values: object) -> None:
        if "waiting until that has ended" in text:
            second_waits.set()
        real_info(logger, text, *values)

    monkeypatch.setattr(cache_module, "_build_one", slow)
    monkeypatch.setattr(logging.Logger, "info", info)
    with ThreadPoolExecutor() as threads:
        first = threads.submit(build, settings)
        assert has_begun.wait(30)
        second = threads.submit(build, settings)
        caches = [first.result(60), second.result(60)]
    assert sorted(built) == sorted(CODES)
    assert [cache.num_built for cache in caches] == [5, 0]
    for cache in caches:
        assert_whole(cache, settings)


@pytest.mark.fault("F4")
def test_a_finished_cache_is_read_while_another_process_builds(settings: Settings) -> None:
    folder = build(settings).folder
    with ThreadPoolExecutor() as threads, in_turn(folder):
        assert threads.submit(build, settings).result(30).num_built == 0


@pytest.mark.fault("F8")
def test_a_finished_cache_is_read_from_a_folder_that_cannot_be_written_to(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(settings)
    monkeypatch.setattr(Path, "touch", refuse(OSError(errno.EROFS, "Read-only file system")))
    monkeypatch.setattr(os, "replace", refuse(OSError(errno.EROFS, "Read-only file system")))
    assert_whole(build(settings), settings)
    with pytest.raises(StorageError, match=r"cannot be used as a folder to write to.*Read-only"):
        build(replace(settings, graph=replace(settings.graph, near_cutoff=3.0)))


@pytest.mark.fault("F8")
def test_a_disk_that_fills_up_stops_the_building_and_keeps_what_is_written(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "SHARD_SIZE", 2)
    real, written = os.fsync, []

    def fsync(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 4:  # a shard and the manifest, and their folder after each
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(StorageError, match=r"graphs-00001\.pt: not saved \(needs .* No space left on device"):
            build(settings)
    folder = build(settings, CODES[:2]).folder
    assert sorted(os.listdir(folder)) == ["graphs-00000.pt", "manifest.json"]
    cache = build(settings)
    assert cache.num_built == 3
    assert_whole(cache, settings)


@pytest.mark.slow
@pytest.mark.fault("F4", "F1")
@pytest.mark.parametrize("first_is_killed", [False, True])
def test_two_programs_that_build_at_once(tmp_path: Path, first_is_killed: bool) -> None:
    codes = [f"2b{number:02}" for number in range(40)]
    write_dataset(tmp_path / "data", codes)
    run = Run(tmp_path)
    options = run.options("--check-data", processing_num_workers=1)
    programs = [start("main.py", options) for _ in range(2)]
    if first_is_killed:
        assert any("building 40 graphs" in line for line in programs[0].stderr) or programs[0].wait() == 0
        programs[0].kill()
    answers = [finish(program) for program in programs]
    survivors = answers[first_is_killed:]
    assert [code for code, *_ in survivors] == [0] * len(survivors), answers
    counts = [int(re.search(r"built or tried now: (\d+)", out)[1]) for _, out, _ in survivors]
    if not first_is_killed:
        assert sorted(counts) == [0, 40]
    assert run.train("--check-data") == 0
    (folder,) = run.folder.glob("processed/*/")
    assert sorted(os.listdir(folder)) == ["graphs-00000.pt", "manifest.json", "skipped.csv"]


@pytest.mark.slow
@pytest.mark.fault("F13")
def test_twenty_thousand_complexes_are_ready_in_seconds(settings: Settings) -> None:
    """The entries of one complex under other codes: what is measured is the number of entries."""
    files = located(settings, CODES[:1])[0]
    built, sources = cache_module._build_one(files, structure="auto", settings=settings.graph)
    cache = cache_module._Folder(Path(settings.processing.processed_data_dir), settings.graph, "auto")
    cache.folder.mkdir(parents=True)
    many = [replace(files, code=f"c{number:05}") for number in range(20_000)]
    for number in range(0, 20_000, cache_module.SHARD_SIZE):
        part = many[number : number + cache_module.SHARD_SIZE]
        cache._write_shard([(replace(built, graph=replace(built.graph, code=one.code)), sources) for one in part])
    cache.manifest.write()
    before = peak_memory()
    whole = build_cache(many, structure="auto", graph_settings=settings.graph, processing=settings.processing)
    assert (len(whole.graphs), whole.num_built) == (20_000, 0)
    assert peak_memory() - before < 500e6


def peak_memory() -> float:
    """Bytes of main memory this process has had at most."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def refuse(error: OSError) -> Callable[..., NoReturn]:
    def raising(*_: object, **__: object) -> NoReturn:
        raise error

    return raising


# Damage


@pytest.fixture
def three_shards(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> GraphCache:
    monkeypatch.setattr(cache_module, "SHARD_SIZE", 2)
    return build(settings)


@pytest.mark.fault("F6", "F7")
@pytest.mark.parametrize("damage", ["bit", "truncated", "missing", "bomb", "other content"])
def test_a_damaged_shard_is_named_and_its_graphs_are_built_again(
    settings: Settings, three_shards: GraphCache, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    shard = three_shards.folder / "graphs-00001.pt"
    content = shard.read_bytes()
    flipped = bytearray(content)
    flipped[content.index(three_shards.graphs["1ccc"].pos.numpy().tobytes())] ^= 4
    if damage == "missing":
        shard.unlink()
    elif damage == "bomb":
        torch.save({"codes": Bomb(shard.with_name("exploded"))}, shard)
    elif damage == "other content":
        write_plain(shard, {"codes": ["1ccc"]})
    else:
        shard.write_bytes(flipped if damage == "bit" else content[:1000])
    cache = build(settings)
    assert cache.num_built == 2
    assert "graphs-00001.pt" in caplog.text
    assert not (three_shards.folder / "exploded").exists()
    assert_whole(cache, settings)
    assert build(settings).num_built == 0


class Bomb:
    def __init__(self, path: Path):
        self.command = f"touch '{path}'"

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


@pytest.mark.fault("F6")
@pytest.mark.parametrize("text", [b"", b'{"records": {', b"[]", b"{}", b"\xff\xfe", b'{"records": 1, "num_shards": 2}'])
def test_a_damaged_manifest_is_named_and_everything_is_built_again(
    settings: Settings, caplog: pytest.LogCaptureFixture, text: bytes
) -> None:
    (build(settings).folder / "manifest.json").write_bytes(text)
    cache = build(settings)
    assert cache.num_built == len(CODES)
    assert "manifest.json" in caplog.text
    assert_whole(cache, settings)


@pytest.mark.fault("F6")
@pytest.mark.parametrize(
    "entry",
    [
        1,
        {},
        [{}],
        [{"shard": "../x.pt", "read_as": "", "notes": [], "sources": []}],
        {"shard": "graphs-00000.pt"},
        {"shard": 7, "sources": [[1]]},
    ],
)
def test_an_odd_entry_of_a_manifest_is_built_again(settings: Settings, entry: object) -> None:
    path = build(settings).folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["records"]["1bbb"] = entry
    path.write_text(json.dumps(manifest))
    assert_whole(build(settings), settings)


@pytest.mark.fault("F7", "K7")
def test_a_manifest_cannot_point_out_of_its_folder(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    folder = build(settings).folder
    (folder / "graphs-00000.pt").rename(folder.parent / "elsewhere.pt")
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace("graphs-00000.pt", "../elsewhere.pt"))
    cache = build(settings)
    assert cache.num_built == len(CODES)
    assert "records of the wrong form" in caplog.text
    assert_whole(cache, settings)


@pytest.mark.fault("F6", "D9")
def test_a_shard_with_nan_is_named_and_built_again(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    shard = build(settings).folder / "graphs-00000.pt"
    packed = read_plain(shard)
    packed["pos"][0, 0] = torch.nan
    write_plain(shard, packed)
    cache = build(settings)
    assert "1aaa" in caplog.text
    assert_whole(cache, settings)


# Settings and versions


@pytest.mark.fault("F2")
@pytest.mark.parametrize("change", ["setting", "version"])
def test_other_settings_and_versions_have_their_own_folder(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    processed = tmp_path / "a b é"
    old = build(settings, processed_data_dir=str(processed))
    if change == "setting":
        changed = replace(settings, graph=replace(settings.graph, near_cutoff=3.0))
    else:
        changed = settings
        monkeypatch.setattr("src.data_processing.DATA_PROCESSING_VERSION", "2.0")
        monkeypatch.setattr(cache_module, "DATA_PROCESSING_VERSION", "2.0")
    new = build(changed, processed_data_dir=str(processed))
    assert new.num_built == len(CODES)
    assert new.folder != old.folder
    assert other_caches(processed, old.folder)[0][0] == new.folder
    ((folder, size, command),) = other_caches(processed, new.folder)
    assert folder == old.folder
    assert size == sum(path.stat().st_size for path in old.folder.iterdir())
    subprocess.run(command, shell=True, check=True)
    assert not old.folder.exists()
    assert new.folder.exists()


@pytest.mark.fault("F2")
def test_a_manifest_of_other_settings_is_named_and_not_used(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as a folder that was copied under another's name."""
    changed = replace(settings, graph=replace(settings.graph, near_cutoff=3.0))
    wanted = build(changed, ["1aaa"]).folder
    shutil.rmtree(wanted)
    shutil.copytree(build(settings).folder, wanted)
    cache = build(changed)
    assert "made with graph_settings {" in caplog.text
    assert cache.num_built == len(CODES)
    assert_whole(cache, changed)


def test_other_folders_of_a_user_are_not_taken_for_caches(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert other_caches(tmp_path, tmp_path / "1.0-00000000") == []


@pytest.mark.parametrize(
    ("structure", "has", "expected"),
    [
        ("auto", "protein pocket", "pocket"),
        ("auto", "protein", "protein"),
        ("auto", "", None),
        ("protein", "protein pocket", "protein"),
        ("protein", "pocket", None),
        ("pocket", "protein pocket", "pocket"),
        ("pocket", "protein", None),
    ],
)
def test_which_protein_file_is_read(structure: str, has: str, expected: str | None) -> None:
    paths = {name: Path(name) if name in has.split() else None for name in ("protein", "pocket")}
    path = protein_file(ComplexFiles("1aaa", **paths, ligands=()), structure)
    assert path == (Path(expected) if expected else None)


# Complexes that cannot be used


@pytest.mark.fault("F5")
def test_every_failure_is_a_row_with_stage_and_reason(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ligand_path(tmp_path, "1aaa").write_text("garbage")
    pocket_path(tmp_path, "1bbb").write_text("")
    ligand_path(tmp_path, "1ccc").write_text(sdf_text(shift=(0.0, 0.0, 300.0)))
    real = cache_module.read_protein

    def failing(path: Path, **options: object) -> object:
        if "1ddd" in path.name:
            raise ZeroDivisionError("a bug")
        return real(path, **options)

    monkeypatch.setattr(cache_module, "read_protein", failing)
    cache = build(settings)
    rows = {row.code: (row.stage, row.reason) for row in cache.skipped}
    assert list(cache.graphs) == ["1eee"]
    assert {code: stage for code, (stage, _) in rows.items()} == {
        "1aaa": "ligand",
        "1bbb": "protein",
        "1ccc": "graph",
        "1ddd": "worker",
    }
    assert "1aaa_ligand.sdf" in rows["1aaa"][1]
    assert "1bbb_pocket.pdb" in rows["1bbb"][1]
    assert "within 6 Å" in rows["1ccc"][1]
    assert rows["1ddd"][1] == "unexpected ZeroDivisionError at stage protein: a bug"


@pytest.mark.parametrize("fault", [OSError(5, "Input/output error"), KeyError("a bug")])
def test_a_fault_that_may_pass_is_tried_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def failing(path: Path, **_: object) -> object:
        if isinstance(fault, OSError):
            raise StructureError(f"{path}: cannot be read") from fault
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "read_protein", failing)
        assert not build(settings).graphs
    assert_whole(build(settings), settings)


def test_running_out_of_memory_is_left_to_the_supervisor(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> object:
        raise MemoryError

    monkeypatch.setattr(cache_module, "read_protein", failing)
    with pytest.raises(MemoryError):  # without workers nobody stands between; with them it becomes a row
        build(settings)


@pytest.mark.fault("F2")
def test_graphs_of_another_rdkit_are_built_again(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    path = build(settings).folder / "manifest.json"
    path.write_text(path.read_text().replace('"rdkit":"', '"rdkit":"1'))
    cache = build(settings)
    assert "made with rdkit 1" in caplog.text
    assert cache.num_built == len(cache.graphs) > 0


def test_a_failed_complex_is_tried_again_when_its_files_change(settings: Settings, tmp_path: Path) -> None:
    path = pocket_path(tmp_path, "1bbb")
    good = path.read_text()
    path.write_text("garbage")
    first, second = build(settings), build(settings)
    assert (first.num_built, second.num_built) == (5, 0)
    assert first.skipped == second.skipped
    path.write_text(good)
    mended = build(settings)
    assert (mended.num_built, mended.skipped) == (1, ())
    assert_whole(mended, settings)


def test_a_good_complex_whose_file_breaks_becomes_a_row(settings: Settings, tmp_path: Path) -> None:
    build(settings)
    pocket_path(tmp_path, "1bbb").write_text("garbage")
    for cache in (build(settings), build(settings)):
        assert [row.code for row in cache.skipped] == ["1bbb"]
        assert "1bbb" not in cache.graphs


@pytest.mark.fault("F5")
def test_a_complex_that_killed_its_worker_is_tried_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = cache_module.run_supervised

    def one_crash(function, tasks, **options):
        for index, result in real(function, tasks, **options):
            yield index, WorkerFault("crashed") if tasks[index].code == "1ccc" else result

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "run_supervised", one_crash)
        lacking = build(settings)
        assert build(settings).num_built == 1
    (row,) = lacking.skipped
    assert (row.code, row.stage, row.reason) == ("1ccc", "worker", "crashed")
    assert lacking.lost == ("1ccc",)
    with caplog.at_level(logging.INFO):
        cache = build(settings)
    assert (cache.num_built, cache.skipped) == (1, ())
    assert "building 1 graph (4 are in" in caplog.text
    assert_whole(cache, settings)


@pytest.mark.fault("F5", "E4")
def test_a_complex_that_is_lost_is_tried_once_more_in_the_same_call(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, tried = cache_module.run_supervised, []

    def first_time_two_crash(function, tasks, **options):
        tried.append([files.code for files in tasks])
        for index, result in real(function, tasks, **options):
            is_lost = len(tried) == 1 and tasks[index].code in ("1aaa", "1ccc")
            yield index, WorkerFault("crashed") if is_lost else result

    monkeypatch.setattr(cache_module, "run_supervised", first_time_two_crash)
    with caplog.at_level(logging.INFO):
        cache = build(settings)
    assert tried == [list(CODES), ["1aaa", "1ccc"]]
    assert (cache.skipped, cache.lost, cache.num_built) == ((), (), 5)
    assert "2 complexes were lost with their worker processes and are tried once more" in caplog.text
    assert_whole(cache, settings)
    assert_whole(build(settings), settings)


def test_notes_are_kept(settings: Settings, tmp_path: Path) -> None:
    path = ligand_path(tmp_path, "1aaa")
    path.write_text(path.read_text() + sdf_text())
    for cache in (build(settings), build(settings)):
        assert list(cache.notes) == ["1aaa"]
        assert "several molecules" in cache.notes["1aaa"][0]


def test_an_empty_list_of_complexes_is_an_empty_cache(settings: Settings) -> None:
    cache = build(settings, [])
    assert (cache.graphs, cache.skipped, cache.num_built) == ({}, (), 0)
