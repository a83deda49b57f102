"""What a checkpoint says about its run, and when another run may go on from it."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest

from config import CONFIG
from src.checkpoint import CheckpointError
from src.data_processing import DATA_PROCESSING_VERSION
from src.run.run_record import (
    FREE_KEYS,
    check_same_run,
    check_same_settings,
    lost_codes,
    run_facts,
    set_aside,
    stored_split,
)
from src.settings import GraphSettings, ModelSettings, settings_from_dict
from src.system.storage import to_plain
from tests.complexes import small_settings

SPLIT = {"train": ["1aaa"], "validation": ["1bbb"], "test": []}
PATH = Path("checkpoint.pth.tar")


@pytest.fixture
def facts(tmp_path: Path) -> dict[str, Any]:
    return run_facts(small_settings(tmp_path), SPLIT, dataset_fingerprint="0a1b", synthetic=False)


def test_the_facts_rebuild_model_and_graphs(facts: dict[str, Any], tmp_path: Path) -> None:
    settings = small_settings(tmp_path)
    assert settings_from_dict(ModelSettings, facts["model_settings"], source="") == settings.model
    assert settings_from_dict(GraphSettings, facts["graph_settings"], source="") == settings.graph
    assert facts["data_version"] == DATA_PROCESSING_VERSION
    assert facts["split"] == SPLIT
    assert facts["dataset"] == {"fingerprint": "0a1b", "synthetic": False, "lost": []}
    assert {"program", "python", "torch", "rdkit", "numpy"} <= facts["versions"].keys()


def test_the_facts_are_plain(facts: dict[str, Any]) -> None:
    assert to_plain(facts) == facts


def test_the_same_run_goes_on_without_a_word(facts: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        check_same_run(facts, copy.deepcopy(facts), PATH)
    assert caplog.text == ""


@pytest.mark.fault("B10")
def test_other_libraries_are_named_and_no_reason_to_stop(
    facts: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    old = copy.deepcopy(facts)
    old["versions"]["torch"] = "1.0"
    check_same_run(facts, old, PATH)
    assert "sums may differ by rounding: torch: '1.0' -> " in caplog.text


@pytest.mark.fault("B8", "B9")
def test_settings_alone_are_judged_as_the_whole_run_is(facts: dict[str, Any], tmp_path: Path) -> None:
    settings = small_settings(tmp_path)
    check_same_settings(settings, facts, PATH)
    for key in CONFIG:
        old = copy.deepcopy(facts)
        old["config"][key] = "before"
        if key in FREE_KEYS:
            check_same_settings(settings, old, PATH)
        else:
            with pytest.raises(CheckpointError, match=f"{key}: 'before' -> "):
                check_same_settings(settings, old, PATH)
    with pytest.raises(CheckpointError, match=r"trained on graphs of version 0\.1; this program"):
        check_same_settings(settings, {**facts, "data_version": "0.1"}, PATH)


def test_numbers_that_auto_stands_for_are_those_of_the_checkpoint(facts: dict[str, Any], tmp_path: Path) -> None:
    facts["config"] |= {"batch_size": 7, "gradient_accumulation_steps": 3}
    check_same_settings(small_settings(tmp_path, batch_size="auto"), facts, PATH)
    with pytest.raises(CheckpointError, match=r"batch_size: 7 -> 4\n.*gradient_accumulation_steps: 3 -> 1"):
        check_same_settings(small_settings(tmp_path), facts, PATH)


def test_every_free_key_is_a_setting() -> None:
    assert set(CONFIG) >= FREE_KEYS


@pytest.mark.fault("B9", "C11")
@pytest.mark.parametrize("key", sorted(FREE_KEYS))
def test_a_change_that_moves_no_weight_is_logged(
    facts: dict[str, Any], caplog: pytest.LogCaptureFixture, key: str
) -> None:
    old = copy.deepcopy(facts)
    old["config"][key] = "before"
    with caplog.at_level(logging.INFO):
        check_same_run(facts, old, PATH)
    assert f"{key}: 'before' -> {facts['config'][key]!r}" in caplog.text


@pytest.mark.fault("B8", "B9", "C11")
@pytest.mark.parametrize("key", sorted(set(CONFIG) - FREE_KEYS))
def test_a_change_that_moves_weights_is_refused_with_both_values(facts: dict[str, Any], key: str) -> None:
    old = copy.deepcopy(facts)
    old["config"][key] = "before"
    with pytest.raises(CheckpointError) as error:
        check_same_run(facts, old, PATH)
    assert f"{key}: 'before' -> {facts['config'][key]!r}" in str(error.value)
    assert "checkpoint.pth.tar" in str(error.value)
    assert "--fresh" in str(error.value)


@pytest.mark.fault("B9", "B10")
def test_all_differences_are_named_at_once(facts: dict[str, Any]) -> None:
    old = copy.deepcopy(facts)
    old["config"] |= {"seed": 1, "batch_size": 99}
    old["data_version"] = "0.1"
    old["dataset"]["fingerprint"] = "ffff"
    with pytest.raises(CheckpointError) as error:
        check_same_run(facts, old, PATH)
    for part in (
        "seed: 1 -> 42",
        "batch_size: 99 -> 4",
        "trained on graphs of version 0.1; this program",
        "data set ffff -> 0a1b",
    ):
        assert part in str(error.value)


@pytest.mark.fault("B9", "C12")
@pytest.mark.parametrize("fault", ["label", "split", "synthetic"])
def test_other_data_is_refused(facts: dict[str, Any], fault: str) -> None:
    old = copy.deepcopy(facts)
    if fault == "split":
        old["split"]["train"] = ["9zzz"]
    elif fault == "label":
        old["dataset"]["fingerprint"] = "ffff"
    else:
        old["dataset"]["synthetic"] = True
    with pytest.raises(CheckpointError, match="codes, labels or their split"):
        check_same_run(facts, old, PATH)


def test_what_was_lost_does_not_tell_runs_apart_and_what_is_lost_now_is_named(facts: dict[str, Any]) -> None:
    old = copy.deepcopy(facts)
    old["dataset"]["lost"] = ["9zzz"]
    check_same_run(facts, old, PATH)
    del old["dataset"]["lost"]  # as an earlier version of this program wrote it
    assert lost_codes(old, PATH) == frozenset()
    check_same_run(facts, old, PATH)
    now = copy.deepcopy(facts)
    now["dataset"] |= {"fingerprint": "ffff", "lost": ["1aaa", "9zzz"]}
    with pytest.raises(CheckpointError, match=r"data set 0a1b -> ffff; 1aaa could not be read now, see skipped\.csv"):
        check_same_run(now, old, PATH)


@pytest.mark.parametrize("odd", ["1aaa", [1], {"1aaa": 1}, None])
def test_an_odd_list_of_lost_complexes_is_refused(facts: dict[str, Any], odd: object) -> None:
    facts["dataset"]["lost"] = odd
    with pytest.raises(CheckpointError, match="odd entries"):
        lost_codes(facts, PATH)


@pytest.mark.fault("K5")
@pytest.mark.parametrize("odd", [{}, {"train": [], "test": []}, {**SPLIT, "test": [1]}, {**SPLIT, "train": [[]]}])
def test_a_split_that_is_none_is_refused(facts: dict[str, Any], odd: dict) -> None:
    assert stored_split(facts, PATH) == SPLIT
    with pytest.raises(CheckpointError, match="its split must be lists of codes named train, validation and test"):
        stored_split({**facts, "split": odd}, PATH)


def test_moved_data_with_the_same_labels_is_the_same_data(tmp_path: Path, facts: dict[str, Any]) -> None:
    moved = small_settings(tmp_path, dataset_path=str(tmp_path / "elsewhere"), index_file="other.lst")
    check_same_run(run_facts(moved, SPLIT, dataset_fingerprint="0a1b", synthetic=False), facts, PATH)


def test_a_key_that_came_or_went_is_a_change(facts: dict[str, Any]) -> None:
    old = copy.deepcopy(facts)
    old["config"]["retired"] = 1
    with pytest.raises(CheckpointError, match="retired: 1 -> None"):
        check_same_run(facts, old, PATH)


def test_earlier_checkpoints_are_moved_and_none_is_lost(tmp_path: Path) -> None:
    assert set_aside(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    contents = []
    for number in range(2):
        for name in ("checkpoint.pth.tar", "model_best.pth.tar"):
            (tmp_path / name).write_text(f"{number} {name}")
            contents.append(f"{number} {name}")
        assert set_aside(tmp_path).parent == tmp_path
        assert list(tmp_path.glob("*.pth.tar")) == []
    assert sorted(path.read_text() for path in tmp_path.rglob("*.pth.tar")) == sorted(contents)
