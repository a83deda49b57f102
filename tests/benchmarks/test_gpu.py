"""gpu.py: what fails, hangs or dies is a row, and the other parts go on; and all of it on a computer without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import gpu
from tests.benchmarks.processes import dies_hangs_and_breaks_the_gpu

ROOT = Path(__file__).resolve().parents[2]
LATER = time.time() + 3600


def part_that_fails(_bench: object) -> Iterator[gpu.Row]:
    yield {"form": "fast"}
    raise ValueError("first line\nsecond line")


def part_without_end(_bench: object) -> Iterator[gpu.Row]:
    while True:
        yield {"form": "fast"}


def test_a_part_that_fails_becomes_a_row_with_the_first_line() -> None:
    rows = list(gpu.rows_of(part_that_fails, None, LATER))
    assert rows == [{"form": "fast"}, {"error": "ValueError: first line"}]


def test_a_part_ends_when_its_time_is_up() -> None:
    rows = list(gpu.rows_of(part_without_end, None, time.time() - 1))
    assert rows[0] == {"form": "fast"}
    assert [list(row) for row in rows[1:]] == [["error"]]


def test_a_process_that_dies_hangs_or_breaks_the_gpu_costs_one_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "_work", dies_hangs_and_breaks_the_gpu)
    monkeypatch.setattr(gpu, "GRACE_S", 0.0)
    monkeypatch.setattr(gpu, "SHARES", {"machine": 1, "equality": 1, "determinism": 600, "speed": 1})
    exit_code = gpu.main(["--out", str(tmp_path), "--minutes", "10", "--parts", *gpu.SHARES])
    report = json.loads((tmp_path / "gpu.json").read_text())
    rows = {name: part["rows"] for name, part in report["parts"].items()}
    assert [row.get("error") for row in rows["machine"]] == [None, "the process ended with exit code 3"]
    assert [row.get("error") for row in rows["equality"]] == [None, "out of time: stopped"]
    assert "fast, Triton" in rows["determinism"][-1]["error"]
    assert rows["speed"] == [{"form": "fast", "without": ["fast, Triton"]}]
    assert exit_code == 1
    assert len(gpu.faults_of(report)) == 3
    assert gpu.markdown(report) == (tmp_path / "gpu.md").read_text()


def test_the_time_that_is_left_is_shared_out_among_the_parts_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "SHARES", {"machine": 5, "speed": 3, "epoch": 1})
    monkeypatch.setattr(time, "time", lambda: 1080.0)
    task = gpu._Task(Path(), None, 2.0, ("speed", "epoch"), Path(), began=1000.0)
    assert task.deadlines("cuda") == {"speed": 1110.0, "epoch": 1120.0}


def test_what_does_not_hold_is_a_fault_and_a_page_has_every_column() -> None:
    rows = [{"form": "fast", "holds": True}, {"form": "a|b", "holds": False}, {"difference": 0.00012345}]
    report = {"date": "2026-11-30", "command": "gpu.py", "parts": {"resume": {"seconds": 2.4, "rows": rows}}}
    assert gpu.faults_of(report) == [("resume", rows[1])]
    table = gpu.markdown(report).split("\n\n")[-1].splitlines()
    assert table[0] == "| form | holds | difference |"
    assert table[2:5] == ["| fast | yes |  |", "| a/b | no |  |", "|  |  | 0.000123 |"]


@pytest.mark.slow
def test_every_part_answers_on_a_computer_without_a_gpu(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/gpu.py", "--out", str(tmp_path), "--minutes", "30"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert list(report["parts"]) == list(gpu.SHARES)
    rows = {name: part["rows"] for name, part in report["parts"].items()}
    assert [name for name, found in rows.items() if not found] == ["speed-of-compiled-PyG"]  # too long for a CPU
    assert {row["form"] for row in rows["equality"]} >= {"plain", "fast", "lean"}
    assert all(row["equal bits"] for row in rows["determinism"])
    assert all(row["train /s"] > 0 < row["infer /s"] for row in rows["speed"])
    assert {"PyG", "fast"} <= {row["form"] for row in rows["launches"]}
    assert all(0.8 < row["measured / planned"] < 1.2 for row in rows["memory"] if "measured / planned" in row)
    answered = [(part, row) for part, found in rows.items() for row in found if "holds" in row]
    assert {part for part, _ in answered} == {"equality", "waits", "full-memory", "resume", "low-precision"}
