"""The profile of a run is no part of its training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from src.optimization import watching
from src.optimization.watching import step_profiler
from src.settings import OutputSettings
from src.system.storage import StorageError
from tests.complexes import small_settings

STEPS = 8  # one to wait for, one to warm up, five to measure, and one more


@pytest.fixture
def output(tmp_path: Path) -> OutputSettings:
    return replace(small_settings(tmp_path).output, profile=True)


def take_steps(output: OutputSettings) -> None:
    with step_profiler(output, 0) as profiler:
        for _ in range(STEPS):
            torch.ones(3).sum()
            profiler.step()


def test_the_profile_names_where_the_time_went(output: OutputSettings) -> None:
    take_steps(output)
    assert "aten::sum" in (Path(output.results_dir) / "profile.txt").read_text(encoding="utf-8")


@pytest.mark.fault("B1")
def test_a_profile_that_the_disk_does_not_take_ends_no_run(
    output: OutputSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, text: str) -> None:
        raise StorageError(f"{path}: not saved: No space left on device")

    monkeypatch.setattr(watching, "write_text", full)
    take_steps(output)
    assert "profile.txt: not saved: No space left on device; training goes on without a profile" in caplog.text


@pytest.mark.parametrize(("profile", "step"), [(False, 0), (True, 1)])
def test_only_the_first_steps_of_a_run_that_asks_for_it_are_profiled(
    output: OutputSettings, profile: bool, step: int
) -> None:
    with step_profiler(replace(output, profile=profile), step) as profiler:
        assert profiler is None
