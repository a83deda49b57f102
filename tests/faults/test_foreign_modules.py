"""Files with the names of Python's modules, as they lie among downloads, are run by no process of the program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.complexes import sdf_text, write_dataset
from tests.faults.mutations import copy_program
from tests.training_runs import CODES, ROOT, Run, score_options

INSTALLED = ("numpy", "rdkit", "torch", "tqdm", "filelock", "scipy", "Bio", "sitecustomize", "usercustomize")
NAMES = sorted({*sys.stdlib_module_names, *INSTALLED})


def write_modules(folder: Path, mark: Path) -> None:
    """A file for each name that says in `mark` that it was run; it imports nothing itself."""
    for name in NAMES:
        text = f"with open({str(mark)!r}, 'a') as file:\n    file.write('{name} ')\n"
        (folder / f"{name}.py").write_text(text)


def run_script(script: Path, *options: str, cwd: Path, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *flags, str(script), *options],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("trained"))
    write_dataset(run.folder / "data", CODES)
    assert run.train(epochs=1) == 0
    return run


@pytest.fixture(scope="module")
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program among such files."""
    folder = copy_program(tmp_path_factory.mktemp("program"))
    write_modules(folder, folder.with_suffix(".mark"))
    return folder


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("downloads")
    write_modules(folder, folder.with_suffix(".mark"))
    return folder


@pytest.mark.parametrize("where", ["current", "own"])
def test_a_screening_runs_none(trained: Run, own_folder: Path, downloads: Path, tmp_path: Path, where: str) -> None:
    program, cwd = (ROOT, downloads) if where == "current" else (own_folder, own_folder)
    poses, output = tmp_path / "poses.sdf", tmp_path / "scores.json"
    poses.write_text("".join(sdf_text(f"pose{number}") for number in range(3)))
    options = [*score_options(trained, "1a01"), "--ligand_path", str(poses), "--num_workers", "1"]
    done = run_script(program / "predict.py", *options, "--output", str(output), cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert [row["status"] for row in json.loads(output.read_text())] == ["ok"] * 3
    assert not cwd.with_suffix(".mark").exists()


@pytest.mark.parametrize("where", ["current", "own"])
def test_a_training_runs_none(tmp_path: Path, own_folder: Path, downloads: Path, where: str) -> None:
    program, cwd = (ROOT, downloads) if where == "current" else (own_folder, own_folder)
    write_dataset(tmp_path / "data", CODES)
    run = Run(tmp_path)
    workers = {"processing_num_workers": 1, "loader_num_workers": 1}
    done = run_script(program / "main.py", *run.options(epochs=1, **workers), cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert (run.results / "report.html").exists()
    assert not cwd.with_suffix(".mark").exists()


def test_python_must_not_ignore_what_protects_its_children(tmp_path: Path) -> None:
    done = run_script(ROOT / "predict.py", "--help", cwd=tmp_path, flags=("-E",))
    assert done.returncode == 1
    assert done.stderr.startswith("error: python -E alone ")


@pytest.mark.parametrize("script", ["main.py", "predict.py"])
def test_the_program_finds_itself_where_python_searches_no_folder(tmp_path: Path, script: str) -> None:
    done = run_script(ROOT / script, "--help", cwd=tmp_path, flags=("-P",))
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
