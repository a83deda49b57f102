"""Files from strangers: nothing in them is run, fills memory, leaves its folder or steers what shows it."""

from __future__ import annotations

import ast
import builtins
import copy
import csv
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import predict as scoring_program
import src.model as model_module
import src.scoring.ensemble as ensemble_module
from src.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from src.settings import ModelSettings
from src.system.storage import read_plain
from tests.complexes import sdf_text, write_dataset
from tests.training_runs import CODES, ROOT, Run, score_options

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX files")


@pytest.fixture(scope="module")
def state(trained: Run) -> dict:
    return load_checkpoint(trained.checkpoints / "checkpoint.pth.tar")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    write_dataset(tmp_path / "data", CODES)
    return Run(tmp_path)


class Bomb:
    """An object whose pickle calls a function when it is loaded."""

    def __init__(self, function: Callable, *arguments: object):
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def bombs(victim: Path) -> dict[str, Bomb]:
    return {
        "os.system": Bomb(os.system, f"touch '{victim}'"),
        "subprocess": Bomb(subprocess.call, ["touch", str(victim)]),
        "exec": Bomb(builtins.exec, f"open({str(victim)!r}, 'w')"),
        "eval": Bomb(builtins.eval, f"open({str(victim)!r}, 'w')"),
        "import": Bomb(builtins.__import__, "antigravity"),
        "load": Bomb(pickle.loads, pickle.dumps(Bomb(os.system, f"touch '{victim}'"))),
    }


def buried(state: dict, where: str, bomb: object) -> object:
    """The state with the bomb deep in one of its parts."""
    state = copy.deepcopy(state)
    if where == "root":
        return bomb
    if where == "model":
        state["model"] = {**state["model"], "layer": bomb}
    elif where == "optimizer":
        state["optimizer"]["state"][0]["exp_avg"] = bomb
    elif where == "key":
        state["config"][bomb] = 1
    else:
        state[where]["deep"] = [{"inside": (1, [bomb])}]
    return state


# Code in a checkpoint or a cache


@pytest.mark.fault("K1")
@pytest.mark.parametrize("where", ["root", "config", "model", "optimizer", "progress", "rng"])
@pytest.mark.parametrize("kind", ["os.system", "subprocess", "exec", "eval", "import", "load"])
def test_a_bomb_is_refused_by_name_wherever_it_lies(tmp_path: Path, state: dict, kind: str, where: str) -> None:
    path, victim = tmp_path / "checkpoint.pth.tar", tmp_path / "exploded"
    torch.save(buried(state, where, bombs(victim)[kind]), path)
    with pytest.raises(CheckpointError, match=r"refused: it asks to run '.*(system|call|exec|eval|__import__|loads)'"):
        load_checkpoint(path)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.fault("K1")
def test_neither_program_runs_a_bomb(run: Run, state: dict, caplog: pytest.LogCaptureFixture) -> None:
    run.checkpoints.mkdir()
    victim = run.folder / "exploded"
    for name in ("checkpoint.pth.tar", "model_best.pth.tar"):
        torch.save(buried(state, "optimizer", bombs(victim)["os.system"]), run.checkpoints / name)
    assert run.train() == 2
    assert "asks to run 'posix.system'" in caplog.text or "asks to run 'nt.system'" in caplog.text
    caplog.clear()
    assert scoring_program.main(score_options(run, "1a01")) == 2
    assert "asks to run" in caplog.text
    assert not victim.exists()


@pytest.mark.fault("K1")
def test_a_bomb_in_the_cache_costs_its_graphs_a_second_building(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    assert run.train("--check-data") == 0
    (shard,) = (run.folder / "processed").glob("*/graphs-*.pt")
    victim = run.folder / "exploded"
    torch.save({"codes": [bombs(victim)["exec"]]}, shard)
    assert run.train("--check-data") == 0
    assert shard.name in caplog.text
    assert "builtins.exec" in caplog.text
    assert not victim.exists()
    for rebuilt in shard.parent.glob("graphs-*.pt"):
        read_plain(rebuilt)


@pytest.mark.fault("K1", "K7")
@pytest.mark.parametrize("shard", ["../../bomb.pt", "/tmp/bomb.pt", "graphs-00000.pt/../../../bomb.pt", "bomb.pt"])
def test_a_manifest_leads_to_no_file_outside_of_its_folder(
    run: Run, monkeypatch: pytest.MonkeyPatch, shard: str
) -> None:
    assert run.train("--check-data") == 0
    (manifest,) = (run.folder / "processed").glob("*/manifest.json")
    content = json.loads(manifest.read_text())
    for records in content["records"].values():
        records[0]["shard"] = shard
    manifest.write_text(json.dumps(content))
    opened: list[str] = []
    real = builtins.open
    monkeypatch.setattr(builtins, "open", lambda file, *a, **k: (opened.append(str(file)), real(file, *a, **k))[1])
    assert run.train("--check-data") == 0
    assert not [name for name in opened if name.endswith("bomb.pt")]
    rebuilt = json.loads(manifest.read_text())["records"]
    assert shard not in {record["shard"] for records in rebuilt.values() for record in records}
    assert set(rebuilt) == set(CODES)


# Files that are no archive of ours


def legacy(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def tarred(content: bytes) -> bytes:
    """The oldest form of torch's files: a tar with a pickle in it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("pickle")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


@pytest.mark.fault("K2")
@pytest.mark.parametrize("bomb", [True, False])
@pytest.mark.parametrize("form", ["pickle", "legacy", "tar", "appended"])
def test_other_forms_are_refused_bomb_or_not(tmp_path: Path, form: str, bomb: bool) -> None:
    path, victim = tmp_path / "checkpoint.pth.tar", tmp_path / "exploded"
    value = bombs(victim)["os.system"] if bomb else {"w": torch.ones(1)}
    plain = pickle.dumps(value if bomb else {"w": 1})
    content = {"pickle": plain, "legacy": legacy(value), "tar": tarred(plain), "appended": plain + b"PK\x05\x06"}[form]
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a file of this program"):
        load_checkpoint(path)
    assert not victim.exists()


# Archives that claim to be small


def content_of(trained: Run) -> bytes:
    return (trained.checkpoints / "checkpoint.pth.tar").read_bytes()


def never(*_: object, **__: object) -> None:
    raise AssertionError("loaded")


@pytest.mark.fault("K3")
def test_a_bomb_of_zeros_is_refused_before_it_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, path = io.BytesIO(), tmp_path / "checkpoint.pth.tar"
    torch.save({"w": torch.zeros(5_000_000)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert path.stat().st_size < 50_000  # of 20 MB
    monkeypatch.setattr(torch, "load", never)
    with pytest.raises(CheckpointError, match="entries are compressed"):
        load_checkpoint(path)


@pytest.mark.fault("K3")
@pytest.mark.parametrize("field", ["compressed", "uncompressed", "both"])
@pytest.mark.parametrize("size", [0, 1, 2**31, 2**32 - 2])
def test_lying_sizes_are_refused_before_anything_is_loaded(
    tmp_path: Path, trained: Run, monkeypatch: pytest.MonkeyPatch, field: str, size: int
) -> None:
    content = bytearray(content_of(trained))
    header = content.rindex(b"PK\x01\x02")  # the directory's entry of one file: sizes at 20 and 24 (APPNOTE 4.3.12)
    largest = max(_directory(content), key=lambda at: struct.unpack_from("<I", content, at + 24)[0])
    assert header >= largest
    for offset in {"compressed": [20], "uncompressed": [24], "both": [20, 24]}[field]:
        struct.pack_into("<I", content, largest + offset, size)
    path = tmp_path / "checkpoint.pth.tar"
    path.write_bytes(content)
    monkeypatch.setattr(torch, "load", never)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pth\.tar: "):
        load_checkpoint(path)


def _directory(content: bytes) -> list[int]:
    places, at = [], content.find(b"PK\x01\x02")
    while at >= 0:
        places.append(at)
        at = content.find(b"PK\x01\x02", at + 4)
    return places


@pytest.mark.fault("K3")
def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.system.archives.MAX_ENTRIES", 500)
    path = tmp_path / "checkpoint.pth.tar"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(501):
            archive.writestr(f"archive/data/{number}", b"")
    monkeypatch.setattr(torch, "load", never)
    with pytest.raises(CheckpointError, match="501 entries, too many"):
        load_checkpoint(path)


# Tensors and settings larger than the file


@pytest.mark.fault("K4")
@pytest.mark.parametrize("part", ["model", "ema", "optimizer"])
def test_a_giant_view_is_refused(tmp_path: Path, state: dict, part: str) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    state = copy.deepcopy(state)
    state[part]["giant"] = torch.zeros(1).expand(10**6, 10**6)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"claims the shape \(1000000, 1000000\) without the data"):
        load_checkpoint(path)


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.fault("K4", "K5")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_channels": 2048, "num_layers": 32, "num_rbf": 1024}, "of another shape than the settings say"),
        ({"hidden_channels": 10**9}, "hidden_channels = 1000000000 must be a whole number from 8 to 2048"),
        ({"num_layers": -1}, "num_layers = -1"),
        ({"num_rbf": 1e3}, "num_rbf"),
        ({"dropout": float("nan")}, "dropout"),
        ({"vector_norm": "os.system"}, "vector_norm"),
        ({"class_path": "os.system"}, "class_path is unknown"),
    ],
)
def test_settings_in_a_checkpoint_build_nothing_before_they_are_checked(
    trained: Run,
    tmp_path: Path,
    state: dict,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    changes: dict,
    message: str,
) -> None:
    """The first of them are within their ranges, and would take 8 GB."""
    path, real = tmp_path / "odd.pth.tar", model_module.build_model

    def build(settings: ModelSettings) -> torch.nn.Module:
        before = resident_pages()
        model = real(settings)
        assert resident_pages() < before + 2**30 // os.sysconf("SC_PAGESIZE"), "a GB of memory is taken"
        return model

    monkeypatch.setattr(model_module, "build_model", build)
    save_checkpoint(path, {**state, "model_settings": {**state["model_settings"], **changes}})
    assert scoring_program.main([*score_options(trained, "1a01"), "--checkpoint", str(path)]) == 2
    assert message in caplog.text


@pytest.mark.fault("K4")
def test_weights_of_another_shape_are_named(trained: Run, tmp_path: Path, state: dict) -> None:
    weights = dict(state["ema"])
    name = next(name for name, value in weights.items() if value.dim() == 2)
    path = tmp_path / "odd.pth.tar"
    save_checkpoint(path, {**state, "ema": {**weights, name: weights[name].T.contiguous()[:1]}})
    with pytest.raises(CheckpointError, match=rf"1 weights are missing.*{name}"):
        ensemble_module.load_scorer(path, "cpu")


@pytest.mark.fault("K5")
@pytest.mark.parametrize("changes", [{"evil": 1}, {"history": ["row"]}])
def test_a_run_goes_on_from_no_odd_progress(
    run: Run, state: dict, caplog: pytest.LogCaptureFixture, changes: dict
) -> None:
    assert run.train(epochs=1) == 0
    path = run.checkpoints / "checkpoint.pth.tar"
    own = load_checkpoint(path)
    own["progress"] = {**own["progress"], "epoch": 5, **changes}
    save_checkpoint(path, own)
    assert run.train(epochs=9) == 2
    assert f"odd entries: '{next(iter(changes))}'" in caplog.text
    assert "Traceback" not in caplog.text


# What is left on the disk


@posix
@pytest.mark.fault("K8")
def test_nobody_else_can_read_what_a_user_with_a_strict_umask_leaves(run: Run) -> None:
    before = os.umask(0o077)
    try:
        assert run.train(epochs=1) == 0
        options = [*score_options(run, "1a01"), "--output", str(run.folder / "scores.csv")]
        assert scoring_program.main(options) == 0
    finally:
        os.umask(before)
    left = [run.folder / "scores.csv"]
    for folder in (run.checkpoints, run.results, run.folder / "processed"):
        left += [folder, *folder.rglob("*")]
    assert len(left) > 10
    assert [path for path in left if path.stat().st_mode & 0o077] == []


@posix
@pytest.mark.fault("K8")
def test_an_output_that_is_a_link_replaces_the_link_and_not_what_it_points_to(trained: Run, tmp_path: Path) -> None:
    victim, link = tmp_path / "victim.csv", tmp_path / "scores.csv"
    link.symlink_to(victim)  # as yet it points to nothing
    assert scoring_program.main([*score_options(trained, "1a01"), "--output", str(link)]) == 0
    assert not victim.exists()
    assert not link.is_symlink()


@posix
@pytest.mark.fault("K8")
def test_names_of_temporary_files_cannot_be_guessed_and_lie_in_the_folder(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, str]] = []
    real = builtins.open

    def watching(file: object, mode: str = "r", *arguments: object, **options: object) -> object:
        opened.append((str(file), mode))
        return real(file, mode, *arguments, **options)

    monkeypatch.setattr(builtins, "open", watching)
    assert run.train(epochs=1) == 0
    written = [(name, mode) for name, mode in opened if set(mode) & set("wxa+")]
    temporary = [name for name, _ in written if name.endswith(".tmp")]
    assert len(temporary) >= 6
    assert len(set(temporary)) == len(temporary)
    assert all(len(name.split(".")[-2]) == 16 for name in temporary)  # 64 random bits
    for name, mode in written:
        assert Path(name).is_relative_to(run.folder) or name == os.devnull, name
        assert "x" in mode or not name.endswith(".tmp"), (name, mode)


# Names


@pytest.mark.fault("I14")
@pytest.mark.parametrize("name", ["=cmd|'/c calc'!A0", "<script>alert(1)</script>", 'a,"b",c', "\x1b[2J\x07evil"])
def test_a_molecule_name_stays_a_name(trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture, name: str) -> None:
    ligand, output = tmp_path / "pose.sdf", tmp_path / "scores.csv"
    ligand.write_text(sdf_text(name))
    options = [*score_options(trained, "1a01"), "--ligand_path", str(ligand), "--output", str(output)]
    assert scoring_program.main(options) == 0
    with open(output, newline="", encoding="utf-8") as file:
        header, row = csv.reader(file)
    assert len(row) == len(header)
    assert row[0][0] not in "=+-@"
    for text in (capsys.readouterr().out, output.read_text(encoding="utf-8")):
        assert all(char.isprintable() or char == "\n" for char in text)


# What the source may not contain


SHIPPED = [*ROOT.glob("*.py"), *(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
FORBIDDEN = {
    *("eval", "exec", "compile", "__import__"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "marshal.load", "shelve.open"),
    *("joblib.load", "dill.load", "dill.loads", "cloudpickle.load", "cloudpickle.loads", "yaml.load", "pd.read_pickle"),
    *("torch.load", "np.load", "numpy.load", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter"),
    *("os.system", "os.popen", "tempfile.mktemp", "torch.serialization.add_safe_globals"),
    *("importlib.import_module", "InMemoryDataset", "ctypes.CDLL"),
}
# (file, call): why it is no way in for a stranger's file.
ALLOWED = {
    ("src/system/storage.py", "torch.load"): "with weights_only=True, behind the checks of the archive; see below",
    ("benchmarks/collate.py", "torch.load"): "with weights_only=True, of files that it wrote a moment ago",
    (
        "src/system/workers.py",
        "pickle.loads",
    ): "messages of its own workers on a pipe that no one else can open",
    ("src/system/worker_process.py", "pickle.loads"): "the other end of that pipe",
}


def calls_in(path: Path) -> list[tuple[str, ast.Call]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.fault("K1")
def test_nothing_that_is_shipped_can_run_what_it_reads() -> None:
    found = {
        (path.relative_to(ROOT).as_posix(), name) for path in SHIPPED for name, _ in calls_in(path) if name in FORBIDDEN
    }
    assert found == set(ALLOWED)
    loads = [node for path in SHIPPED for name, node in calls_in(path) if name == "torch.load"]
    assert len(loads) == 2
    for node in loads:
        assert {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}["weights_only"] == "True"


@pytest.mark.fault("K1")
@pytest.mark.parametrize("option", ["weights_only", "allow_pickle", "shell", "trust_remote_code"])
def test_no_option_is_given_that_lets_a_file_run_code(option: str) -> None:
    harmless = {"weights_only": "True", "allow_pickle": "False", "shell": "False", "trust_remote_code": "False"}
    for path in SHIPPED:
        for name, node in calls_in(path):
            values = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == option]
            assert set(values) <= {harmless[option]}, f"{path}: {name} with {option} = {values}"


def test_names_are_imported_whole_so_that_the_search_above_finds_them() -> None:
    """`from pickle import loads` would hide from it."""
    modules = {name.rpartition(".")[0] for name in FORBIDDEN} - {""}
    for path in SHIPPED:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in modules:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                assert not names & FORBIDDEN, f"{path}: {names}"
