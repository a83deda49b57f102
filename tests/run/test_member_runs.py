"""The runs of an ensemble and of a cross-validation."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from src.checkpoint import BEST
from src.run.member_runs import member_runs, set_members_aside
from src.settings import Settings
from tests.complexes import small_settings


def runs(folder: Path, **changes: object) -> tuple[Settings, list[Settings]]:
    settings = small_settings(folder, **changes)
    return settings, member_runs(settings, folder)


def test_one_member_and_one_fold_are_the_run_itself(tmp_path: Path) -> None:
    settings, (one,) = runs(tmp_path)
    assert one is settings


def test_every_fold_has_every_member_in_folders_of_its_own(tmp_path: Path) -> None:
    _, found = runs(tmp_path, members=2, split_folds=2, split_fold="all", seed=7)
    assert [(one.data.split_fold, one.training.seed) for one in found] == [(0, 7), (0, 8), (1, 7), (1, 8)]
    assert {one.data.split_seed for one in found} == {7}
    names = ["fold_0_seed_7", "fold_0_seed_8", "fold_1_seed_7", "fold_1_seed_8"]
    assert [Path(one.output.checkpoint_dir) for one in found] == [tmp_path / "checkpoints" / name for name in names]
    assert [Path(one.output.results_dir) for one in found] == [tmp_path / "results" / name for name in names]


def test_members_have_the_test_set_that_the_user_asked_for(tmp_path: Path) -> None:
    _, found = runs(tmp_path, members=2, split_seed=3)
    assert {one.data.split_seed for one in found} == {3}


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_a_single_run_in_their_folder_is_moved_and_other_models_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings, found = runs(tmp_path, members=2, seed=7)
    folder = tmp_path / "checkpoints"
    for name in ("", "seed_7", "seed_9", "before-20200101"):
        touch(folder / name / BEST)
    set_members_aside(settings, found, fresh=False)
    assert not (folder / BEST).exists()
    assert (folder / "seed_7" / BEST).exists()
    assert "models of other runs, which score with these: seed_9" in caplog.text
    set_members_aside(settings, found, fresh=True)
    assert not (folder / "seed_7" / BEST).exists()
