"""A Python or a torch that is too old and a package that is not there are one line, before torch is imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from src.system import installation
from src.system.installation import installation_fault
from tests.training_runs import ROOT


def with_versions(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    real = metadata.version

    def version(name: str) -> str:
        found = versions[name] if name in versions else real(name)
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(installation.metadata, "version", version)


def test_here_nothing_is_missing() -> None:
    assert installation_fault() == ""


@pytest.mark.fault("K10")
@pytest.mark.parametrize(
    ("version", "is_old"),
    [("1.13.1", True), ("2.9.1+cu128", True), ("2.10.0", False), ("2.13.0+cpu", False), ("3.0", False), ("git", False)],
)
def test_a_torch_with_the_hole_is_refused(monkeypatch: pytest.MonkeyPatch, version: str, is_old: bool) -> None:
    with_versions(monkeypatch, torch=version)
    assert (f"torch {version} is too old" in installation_fault()) == is_old


@pytest.mark.fault("M7")
def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(monkeypatch, rdkit=None, biopython=None)
    fault = installation_fault()
    assert fault.startswith("not installed: rdkit, biopython. Install with: ")
    assert f"pip install -r {ROOT / 'requirements.txt'}" in fault
    assert "\n" not in fault


def test_what_only_the_tests_need_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(monkeypatch, pytest=None, **dict.fromkeys(("pytest-xdist", "torch-geometric", "dimorphite-dl")))
    assert installation_fault() == ""


@pytest.mark.fault("M9")
def test_an_old_python_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation.sys, "version_info", (3, 9, 2, "final", 0))
    assert installation_fault() == "Python 3.9.2 is too old: 3.11 or newer is needed"


def test_every_line_of_the_requirements_is_understood() -> None:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    expected = set(re.findall(r"^([\w-]+)[=><]", text, re.MULTILINE)) - set(installation.FOR_TESTS)
    assert set(installation._required()) == expected
    assert {"torch", "rdkit"} <= expected


def test_without_the_file_nothing_is_known_to_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(installation, "REQUIREMENTS", tmp_path / "absent.txt")
    assert installation_fault() == ""


@pytest.mark.fault("K10", "M7")
@pytest.mark.parametrize("script", ["main.py", "predict.py"])
@pytest.mark.parametrize(("version", "message"), [("2.9.1", "torch 2.9.1 is too old"), (None, "not installed: torch")])
def test_both_programs_say_so_before_they_import_torch(script: str, version: str | None, message: str) -> None:
    """torch cannot be imported here, so that a program that tries to ends with another message."""
    program = f"""
import runpy, sys
from importlib import metadata
real, installed = metadata.version, {version!r}
def version(name):
    if name != "torch":
        return real(name)
    if installed is None:
        raise metadata.PackageNotFoundError(name)
    return installed
metadata.version = version
sys.modules["torch"] = None
sys.argv = [{script!r}, "--help"]
runpy.run_path({script!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {message}")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="torch has growing blocks on Linux alone")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "expandable_segments:True None"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}, "max_split_size_mb:64 None"),
        ({"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}, "None max_split_size_mb:64"),
    ],
)
def test_the_memory_of_a_gpu_grows_unless_the_user_says_otherwise(given: dict[str, str], expected: str) -> None:
    names = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
    code = f"import os, src; print(*map(os.environ.get, {names}))"
    environment = {name: value for name, value in os.environ.items() if name not in names} | given
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == expected, done.stderr


def test_threads_know_how_long_to_wait_before_torch_is_there() -> None:
    """torch's OpenMP reads it once, when it is loaded."""
    code = "import os, sys, src; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    for given, expected in (({}, "1000 False"), ({"GOMP_SPINCOUNT": "7"}, "7 False")):
        environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"} | given
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == expected, done.stderr
