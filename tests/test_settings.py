from __future__ import annotations

import os
from pathlib import Path

import pytest

from config import CONFIG, CPU, GPU_6GB, GPU_16GB
from src.settings import (
    GraphSettings,
    ModelSettings,
    SettingsError,
    as_dict,
    read_settings,
    settings_from_dict,
)

ROOT = Path("/data")


def test_the_shipped_config_is_valid_with_every_hardware_block() -> None:
    for block in (CPU, GPU_6GB, GPU_16GB):
        assert read_settings({**CONFIG, **block}, root=ROOT).model.hidden_channels == block["visnet_hidden_channels"]


@pytest.mark.fault("M1")
def test_a_misspelt_key_names_the_nearest_one() -> None:
    with pytest.raises(SettingsError, match="'learing_rate' is not a setting; did you mean 'learning_rate'"):
        read_settings({**CONFIG, "learing_rate": 1e-3}, root=ROOT)


def test_a_missing_key_is_named() -> None:
    config = {key: value for key, value in CONFIG.items() if key != "epochs"}
    with pytest.raises(SettingsError, match="epochs is missing"):
        read_settings(config, root=ROOT)


@pytest.mark.fault("M2")
def test_all_faults_are_listed_at_once() -> None:
    faulty = {**CONFIG, "epochs": 0, "dropout_rate": 1.5, "optimizer": "sgd", "seeed": 1, "keep_ions": 1}
    with pytest.raises(SettingsError) as error:
        read_settings(faulty, root=ROOT)
    message = str(error.value)
    assert message.startswith("CONFIG has 5 faults")
    for key in ("epochs", "dropout_rate", "optimizer", "seeed", "keep_ions"):
        assert key in message


@pytest.mark.fault("D12", "M2")
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learning_rate", float("nan")),
        ("learning_rate", 0),
        ("learning_rate", -1e-3),
        ("learning_rate", "1e-3"),
        ("gradient_accumulation_steps", 0),
        ("batch_size", 2.5),
        ("batch_size", True),
        ("train_split", 1.2),
        ("visnet_lmax", 3),
        ("affinity_kinds", []),
        ("affinity_kinds", ["EC50"]),
        ("device", "gpu"),
        ("seed", -1),
        ("weight_decay", float("inf")),
        ("weight_decay", -0.1),
        ("weight_decay", 10.0),
        ("learning_rate", 50.0),
        ("gradient_clip_norm", 0.0),
        ("results_dir", " "),
        ("results_dir", "a\0b"),
        ("dataset_path", "\ud800"),
    ],
)
def test_values_that_make_no_sense_are_refused(key: str, value: object) -> None:
    with pytest.raises(SettingsError, match=key):
        read_settings({**CONFIG, key: value}, root=ROOT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pocket_radius": 6.0, "interaction_cutoff": 6.0}, "pocket_radius"),
        ({"visnet_hidden_channels": 60, "visnet_num_heads": 8}, "multiple"),
        ({"index_file": "my.csv", "dataset_path": None}, "dataset_path"),
        ({"train_split": 0.8, "validation_split": 0.3}, "must not exceed 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings({**CONFIG, **changes}, root=ROOT)


@pytest.mark.fault("M2")
def test_values_that_contradict_each_other_are_listed_with_other_faults() -> None:
    faulty = {**CONFIG, "epochs": 0, "visnet_hidden_channels": 30, "pocket_radius": 5.0}
    with pytest.raises(SettingsError, match=r"(?s)3 faults.*multiple.*"):
        read_settings(faulty, root=ROOT)


def test_relative_paths_start_from_the_root_and_absolute_ones_stay() -> None:
    settings = read_settings({**CONFIG, "results_dir": "out", "dataset_path": "/abs/set"}, root=ROOT)
    assert Path(settings.output.results_dir) == ROOT / "out"
    assert Path(settings.data.dataset_path) == Path("/abs/set")
    assert settings.data.index_file is None


def test_a_group_survives_the_way_through_a_checkpoint() -> None:
    model = read_settings(CONFIG, root=ROOT).model
    assert settings_from_dict(ModelSettings, as_dict(model), source="c.pth.tar") == model


@pytest.mark.fault("K5")
@pytest.mark.parametrize("change", [{"hidden_channels": 10**9}, {"num_layers": -1}, {"evil": 1}])
def test_settings_from_a_strangers_checkpoint_are_checked(change: dict) -> None:
    values = {**as_dict(read_settings(CONFIG, root=ROOT).model), **change}
    with pytest.raises(SettingsError, match=r"c\.pth\.tar"):
        settings_from_dict(ModelSettings, values, source="c.pth.tar")


def test_a_missing_field_in_a_checkpoint_is_named() -> None:
    with pytest.raises(SettingsError, match="pocket_radius is missing"):
        settings_from_dict(GraphSettings, {}, source="c.pth.tar")


def test_values_of_a_checkpoint_that_contradict_each_other_are_refused() -> None:
    values = {**as_dict(read_settings(CONFIG, root=ROOT).graph), "pocket_radius": 6.0}
    with pytest.raises(SettingsError, match=r"c\.pth\.tar: .*pocket_radius = 6 must be larger"):
        settings_from_dict(GraphSettings, values, source="c.pth.tar")


def test_what_a_checkpoint_keeps_of_the_config_is_plain() -> None:
    config = read_settings({**CONFIG, "results_dir": Path("out"), "affinity_kinds": ("Ki",)}, root=ROOT).config
    assert (config["results_dir"], config["affinity_kinds"]) == ("out", ["Ki"])
    assert config.keys() == CONFIG.keys()


@pytest.mark.fault("M1")
@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("learing_rate", "learning_rate"),
        ("Learning_Rate", "learning_rate"),
        ("batchsize", "batch_size"),
        ("epoch", "epochs"),
        ("dataset", "dataset_path"),
        ("checkpoint_folder", "checkpoint_dir"),
        ("visnet_hidden_chanels", "visnet_hidden_channels"),
    ],
)
def test_the_nearest_name_is_the_one_that_was_meant(typed: str, meant: str) -> None:
    with pytest.raises(SettingsError, match=f"{typed!r} is not a setting; did you mean {meant!r}"):
        read_settings({**CONFIG, typed: 1}, root=ROOT)


def test_a_word_near_no_name_has_no_suggestion() -> None:
    with pytest.raises(SettingsError, match=r"'qqqq' is not a setting$"):
        read_settings({**CONFIG, "qqqq": 1}, root=ROOT)


@pytest.mark.fault("M3")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("~/a set", "/home/zoë/a set"),
        ("my data/", "/data/my data"),
        ("./x/../y", "/data/y"),
        ("/abs/µ", "/abs/µ"),
        ("~nobody-of-this-name/x", "/data/~nobody-of-this-name/x"),
    ],
)
def test_paths_may_be_written_in_any_way(monkeypatch: pytest.MonkeyPatch, given: str, expected: str) -> None:
    monkeypatch.setenv("HOME", "/home/zoë")
    settings = read_settings({**CONFIG, "dataset_path": given}, root=ROOT)
    assert os.path.normpath(settings.data.dataset_path) == expected


@pytest.mark.fault("M6")
def test_a_path_that_the_locale_cannot_write_is_a_fault_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.settings.os.fsencode", lambda text: text.encode("ascii", "surrogateescape"))
    with pytest.raises(SettingsError, match=r"dataset_path = '/Zoë' has letters .* set PYTHONUTF8=1"):
        read_settings({**CONFIG, "dataset_path": "/Zoë"}, root=ROOT)
    assert read_settings({**CONFIG, "dataset_path": "/Zo\udcc3\udcab"}, root=ROOT)
