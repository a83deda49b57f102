"""CONFIG dictionary -> frozen, validated settings; every fault of the dictionary is reported at once."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from src.system.errors import UserError


class SettingsError(UserError):
    """One or more settings cannot be used; the message has a line for each."""


def _setting(key: str, check: Callable[[Any], Any]) -> Any:
    return field(metadata={"key": key, "check": check})


def _whole(least: int, most: int = 10**9) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return value

    return check


def _number(least: float, most: float, *, above: bool = False) -> Callable[[Any], float]:
    """A finite number in [least, most], or in (least, most] with above."""

    def check(value: Any) -> float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or not least <= value <= most or (above and value == least):
            raise ValueError(f"must be a number {'above' if above else 'from'} {least:g} to {most:g}")
        return float(value)

    return check


def _choice(*allowed: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(repr(a) for a in allowed)}")
        return value

    return check


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be True or False")
    return value


def _path(value: Any) -> str:
    if not isinstance(value, (str, Path)) or not str(value).strip():
        raise ValueError("must be a text that is not empty")
    text = str(value)
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ValueError("has letters that this locale knows no bytes for; set PYTHONUTF8=1") from None
    if "\0" in text:
        raise ValueError("must not hold a NUL character")
    return text


def _device(value: Any) -> str:
    if not isinstance(value, str) or value.split(":")[0] not in ("auto", "cpu", "cuda", "mps"):
        raise ValueError("must be 'auto', 'cpu', 'cuda', 'cuda:<number>' or 'mps'")
    return value


def _kinds(value: Any) -> tuple[str, ...]:
    allowed = ("Kd", "Ki", "IC50")
    if not isinstance(value, (list, tuple)) or not value or any(kind not in allowed for kind in value):
        raise ValueError(f"must be a list of one or more of {', '.join(allowed)}")
    return tuple(dict.fromkeys(value))


def _or_none(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def check_or_none(value: Any) -> Any:
        try:
            return None if value is None else check(value)
        except ValueError as error:
            raise ValueError(f"{error}, or None") from None

    return check_or_none


def _or_word(word: str, check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def check_or_word(value: Any) -> Any:
        try:
            return value if value == word else check(value)
        except ValueError as error:
            raise ValueError(f"{error}, or {word!r}") from None

    return check_or_word


@dataclass(frozen=True)
class DataSettings:
    """Which complexes to learn from, and how they are split."""

    dataset_path: str | None = _setting("dataset_path", _or_none(_path))
    index_file: str | None = _setting("index_file", _or_none(_path))
    structure: str = _setting("structure", _choice("auto", "protein", "pocket"))
    affinity_kinds: tuple[str, ...] = _setting("affinity_kinds", _kinds)
    censored_labels: str = _setting("censored_labels", _choice("drop", "bound"))
    max_resolution: float | None = _setting("max_resolution", _or_none(_number(0, 100, above=True)))
    keep_nmr: bool = _setting("keep_nmr", _flag)
    keep_covalent: bool = _setting("keep_covalent", _flag)
    keep_incomplete_ligands: bool = _setting("keep_incomplete_ligands", _flag)
    keep_multi_ligands: bool = _setting("keep_multi_ligands", _flag)
    max_failed_fraction: float = _setting("max_failed_fraction", _number(0, 1))
    train_split: float = _setting("train_split", _number(0, 1, above=True))
    validation_split: float = _setting("validation_split", _number(0, 1, above=True))
    split: str = _setting("split", _choice("random", "time", "cluster", "scaffold", "file"))
    split_file: str | None = _setting("split_file", _or_none(_path))
    split_folds: int | None = _setting("split_folds", _or_none(_whole(2, 1000)))
    split_fold: int | str = _setting("split_fold", _or_word("all", _whole(0, 999)))
    split_seed: int | None = _setting("split_seed", _or_none(_whole(0, 2**32 - 1)))
    # LP-PDBBind (arXiv 2308.09639) parts at 0.5 identity and joins at 0.9; CleanSplit (doi 10.1038/s42256-025-01124-5)
    # takes ligands above 0.9 for the same.
    cluster_sequence_identity: float = _setting("cluster_sequence_identity", _number(0.2, 1))
    cluster_ligand_similarity: float = _setting("cluster_ligand_similarity", _number(0.2, 1))
    cluster_same_protein: float = _setting("cluster_same_protein", _number(0.2, 1))

    def __post_init__(self) -> None:
        if self.index_file is not None and self.dataset_path is None:
            raise ValueError("index_file is set but dataset_path is not: name the folder with the complexes")
        if self.train_split + self.validation_split > 1:
            raise ValueError(
                f"train_split + validation_split = {self.train_split + self.validation_split:g} must not exceed 1"
            )
        if (self.split == "file") != (self.split_file is not None):
            raise ValueError(f"split = {self.split!r} and split_file = {self.split_file!r}: 'file' needs one, no other")
        if self.split_fold == "all":
            if self.split_folds is None:
                raise ValueError("split_fold = 'all' needs split_folds, the number of folds")
        elif self.split_fold >= (self.split_folds or 1):
            raise ValueError(f"split_fold = {self.split_fold} must be below split_folds = {self.split_folds}")


@dataclass(frozen=True)
class GraphSettings:
    """What the graphs of a complex contain. The cache folder is named by a fingerprint of these values."""

    pocket_radius: float = _setting("pocket_radius", _number(3, 10))  # Å
    interaction_cutoff: float = _setting("interaction_cutoff", _number(2, 10))  # Å
    near_cutoff: float = _setting("visnet_cutoff", _number(1, 10))  # Å
    max_neighbors: int = _setting("visnet_max_neighbors", _whole(1, 1000))
    keep_waters: bool = _setting("keep_waters", _flag)
    keep_ions: bool = _setting("keep_ions", _flag)
    keep_cofactors: bool = _setting("keep_cofactors", _flag)

    def __post_init__(self) -> None:
        if self.pocket_radius <= self.interaction_cutoff:
            raise ValueError(
                f"pocket_radius = {self.pocket_radius:g} must be larger than "
                f"interaction_cutoff = {self.interaction_cutoff:g}"
            )


@dataclass(frozen=True)
class ProcessingSettings:
    """Where graphs are kept and by how many processes they are built."""

    processed_data_dir: str = _setting("processed_data_dir", _path)
    num_workers: int = _setting("processing_num_workers", _whole(0, 1024))
    timeout_s: float = _setting("processing_timeout_s", _number(0, 86_400, above=True))
    memory_gb: float = _setting("processing_memory_gb", _number(0.5, 10_000))


@dataclass(frozen=True)
class ModelSettings:
    """The shape of the network; stored in every checkpoint, from which the network is rebuilt."""

    hidden_channels: int = _setting("visnet_hidden_channels", _whole(8, 2048))
    num_layers: int = _setting("visnet_num_layers", _whole(1, 32))
    num_heads: int = _setting("visnet_num_heads", _whole(1, 128))
    num_rbf: int = _setting("visnet_num_rbf", _whole(2, 1024))
    lmax: int = _setting("visnet_lmax", _whole(1, 2))
    vector_norm: str = _setting("visnet_vector_norm", _choice("rms", "max_min", "none"))
    dropout: float = _setting("dropout_rate", _number(0, 0.9))
    near_cutoff: float = _setting("visnet_cutoff", _number(1, 10))  # Å
    interaction_cutoff: float = _setting("interaction_cutoff", _number(2, 10))  # Å

    def __post_init__(self) -> None:
        if self.hidden_channels % self.num_heads:
            raise ValueError(
                f"visnet_hidden_channels = {self.hidden_channels} must be a multiple of "
                f"visnet_num_heads = {self.num_heads}"
            )


@dataclass(frozen=True)
class TrainingSettings:
    """The loop: order, steps, precision and when to stop."""

    epochs: int = _setting("epochs", _whole(1))
    batch_size: int | str = _setting("batch_size", _or_word("auto", _whole(1, 100_000)))
    max_atoms_per_batch: int | None = _setting("max_atoms_per_batch", _or_none(_whole(1)))
    max_edges_per_batch: int | None = _setting("max_edges_per_batch", _or_none(_whole(1)))
    gradient_accumulation_steps: int = _setting("gradient_accumulation_steps", _whole(1, 100_000))
    learning_rate: float = _setting("learning_rate", _number(0, 1, above=True))
    optimizer: str = _setting("optimizer", _choice("adam", "adamw"))
    weight_decay: float = _setting("weight_decay", _number(0, 1))
    scheduler: str = _setting("scheduler", _choice("cosine", "plateau"))
    warmup_epochs: float = _setting("warmup_epochs", _number(0, 1000))
    plateau_factor: float = _setting("plateau_factor", _number(0, 0.99, above=True))
    plateau_patience: int = _setting("plateau_patience", _whole(0))
    gradient_clip_norm: float = _setting("gradient_clip_norm", _number(0, 1e9, above=True))
    ema_decay: float = _setting("ema_decay", _number(0, 0.99999))
    ranking_weight: float = _setting("ranking_weight", _number(0, 100))
    coordinate_noise: float = _setting("coordinate_noise", _number(0, 1))  # Å
    decoy_fraction: float = _setting("decoy_fraction", _number(0, 0.9))
    gaussian_process: bool = _setting("gaussian_process", _flag)
    early_stopping_patience: int = _setting("early_stopping_patience", _whole(0))
    message_passing: str = _setting("message_passing", _choice("auto", "keep", "fast", "lean"))
    precision: str = _setting("precision", _choice("auto", "fp32", "tf32", "bf16", "fp16"))
    device: str = _setting("device", _device)
    cpu_processes: int | str = _setting("cpu_processes", _or_word("auto", _whole(1, 1024)))
    loader_num_workers: int = _setting("loader_num_workers", _whole(0, 1024))
    max_skipped_in_a_row: int = _setting("max_skipped_in_a_row", _whole(1))
    max_skipped_fraction: float = _setting("max_skipped_fraction", _number(0, 1, above=True))
    members: int = _setting("members", _whole(1, 100))
    seed: int = _setting("seed", _whole(0, 2**32 - 1))


@dataclass(frozen=True)
class OutputSettings:
    """What a run leaves, and when."""

    checkpoint_dir: str = _setting("checkpoint_dir", _path)
    results_dir: str = _setting("results_dir", _path)
    checkpoint_every_batches: int = _setting("checkpoint_every_batches", _whole(0))
    manual_save_trigger_file: str = _setting("manual_save_trigger_file", _path)
    profile: bool = _setting("profile", _flag)
    tensorboard: bool = _setting("tensorboard", _flag)


@dataclass(frozen=True)
class Settings:
    data: DataSettings
    graph: GraphSettings
    processing: ProcessingSettings
    model: ModelSettings
    training: TrainingSettings
    output: OutputSettings
    config: dict[str, Any]  # the dictionary these settings were read from, as plain values


_PATH_KEYS = [
    "dataset_path",
    "index_file",
    "split_file",
    "processed_data_dir",
    "checkpoint_dir",
    "results_dir",
    "manual_save_trigger_file",
]
_GROUPS = {
    "data": DataSettings,
    "graph": GraphSettings,
    "processing": ProcessingSettings,
    "model": ModelSettings,
    "training": TrainingSettings,
    "output": OutputSettings,
}
_KNOWN_KEYS = list(dict.fromkeys(f.metadata["key"] for group in _GROUPS.values() for f in fields(group)))


def read_settings(config: Mapping[str, Any], *, root: Path) -> Settings:
    """Check a CONFIG dictionary and turn it into settings; relative paths start from root.

    Raises:
        SettingsError: with one line for each unknown, missing, mistyped or contradictory setting.
    """
    faults = [_unknown(key) for key in config if key not in _KNOWN_KEYS]
    faults += [f"{key} is missing from CONFIG" for key in _KNOWN_KEYS if key not in config]
    groups = {name: _read_group(group, config, faults) for name, group in _GROUPS.items()}
    faults = list(dict.fromkeys(faults))
    if faults:
        raise SettingsError(f"CONFIG has {len(faults)} fault{'s' * (len(faults) > 1)}:\n  " + "\n  ".join(faults))
    checked = {one.metadata["key"]: getattr(group, one.name) for group in groups.values() for one in fields(group)}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in checked.items()}
    groups = {name: _resolve_paths(group, root) for name, group in groups.items()}
    return Settings(**groups, config=plain)


def settings_from_dict(group: type, values: Mapping[str, Any], *, source: str) -> Any:
    """Rebuild one group of settings from the plain dictionary that a checkpoint carries.

    Args:
        group: the dataclass, such as ModelSettings.
        values: field name -> value.
        source: where the dictionary came from, for the error message.

    Raises:
        SettingsError: for a missing or unknown name, or a value out of range.
    """
    names = {f.name for f in fields(group)}
    faults = [f"{name} is unknown" for name in values if name not in names]
    faults += [f"{name} is missing" for name in names if name not in values]
    checked = {}
    for one in fields(group):
        if one.name in values:
            try:
                checked[one.name] = one.metadata["check"](values[one.name])
            except ValueError as error:
                faults.append(f"{one.name} = {values[one.name]!r} {error}")
    if not faults:
        try:
            return group(**checked)
        except ValueError as error:  # values that contradict each other
            faults = [str(error)]
    raise SettingsError(f"{source}: {group.__name__}: " + "; ".join(faults))


def as_dict(group: Any) -> dict[str, Any]:
    """One group of settings as plain values, ready for a checkpoint or JSON."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(group).items()}


def _read_group(group: type, config: Mapping[str, Any], faults: list[str]) -> Any:
    values = {}
    for one in fields(group):
        key = one.metadata["key"]
        if key not in config:
            continue
        try:
            values[one.name] = one.metadata["check"](config[key])
        except ValueError as error:
            faults.append(f"{key} = {config[key]!r} {error}")
    if len(values) < len(fields(group)):
        return None
    try:
        return group(**values)
    except ValueError as error:  # values that contradict each other
        faults.append(str(error))
        return None


def _resolve_paths(group: Any, root: Path) -> Any:
    given = {f.name: getattr(group, f.name) for f in fields(group) if f.metadata["key"] in _PATH_KEYS}
    resolved = {name: str(root / os.path.expanduser(path)) for name, path in given.items() if path is not None}
    return replace(group, **resolved)


def _unknown(key: Any) -> str:
    nearest = difflib.get_close_matches(str(key), _KNOWN_KEYS, n=1, cutoff=0.5)
    return f"{key!r} is not a setting" + (f"; did you mean {nearest[0]!r}?" if nearest else "")
