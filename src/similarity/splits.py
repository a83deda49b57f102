"""A data set -> the codes to train, validate and test on, and how much of the test set is known from training.

random    each complex by a hash of seed and code; similar complexes stand on both sides
time      whole release years: the oldest train, the newest test
cluster   whole clusters of complexes that are alike in protein and ligand, or in protein alone (comparison.py)
scaffold  whole groups of one Bemis-Murcko scaffold; ligands without a ring are groups of their own
file      lists of codes (split_files.py)

With split_folds = k the fold split_fold is the test set and the rest is split into training and validation. Folds of
'time' go forward: the years are cut into k + 1 blocks, fold f tests on block f + 1 and trains on those before it. Of
'file' the test set stays as it is listed, and the folds are validation sets of the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np

from src.data.dataset import Dataset, DatasetError
from src.evaluation.findings import LeakageRow
from src.settings import DataSettings, ProcessingSettings, Settings
from src.similarity.comparison import Similarity, Thresholds, scaffold
from src.similarity.sequences import describe, read_kept
from src.similarity.split_files import SplitFileError, read_split_file
from src.system.storage import StorageError, write_json

log = logging.getLogger(__name__)

LEAK_LIMIT = 0.9  # identity and Tanimoto similarity above which a complex counts as known from training
LEAKAGE_FILE, LEAKAGE_VERSION = "leakage.json", 1  # the version changes with how complexes are compared
MAX_KNOWN = 64  # splits whose leakage is kept
MAX_CLUSTER = 0.25  # fraction of a validation or test set; a larger group would decide the result alone, so it trains

Parts = dict[str, list[str]]


class SplitError(DatasetError):
    """A split that was asked for cannot be made of this data set."""


def compare_complexes(dataset: Dataset, processing: ProcessingSettings) -> Similarity:
    """Sequences and ligands of all examples, numbered as they stand in the data set."""
    graphs = [example.graph for example in dataset.examples]
    chains = describe([dataset.files[graph.code] for graph in graphs], processing)
    origins = [chains[graph.code].origin for graph in graphs]
    if num_pockets := origins.count("pocket"):
        text = "%d of %d proteins are known by their pocket alone: identity is that of pockets"
        log.info(text, num_pockets, len(graphs))
    if num_unknown := sum(not chains[graph.code].sequences for graph in graphs):
        text = "%d of %d complexes have no amino acid sequence: none is known to be alike to them by its protein"
        log.warning(text, num_unknown, len(graphs))
    return Similarity([chains[graph.code].sequences for graph in graphs], [graph.smiles for graph in graphs])


def split_dataset(dataset: Dataset, data: DataSettings, seed: int, similarity: Similarity) -> Parts:
    """The codes to train on, to validate on and to test on, as the settings ask for; each list is sorted.

    Raises:
        SplitError: the split cannot be made, or too few labels of the training or validation set are exact values.
    """
    codes = [example.graph.code for example in dataset.examples]
    first = seed if data.split_seed is None else data.split_seed
    if data.split == "file":
        split = _listed(codes, data, seed)
    elif data.split == "time":
        years = {code: dataset.entries[code].year for code in codes}
        split = split_by_year(years, data)
    else:
        groups = group_of_code(dataset, data, similarity)
        split = _by_hash(codes, groups, data, first)
        if seed != first:
            rest = [code for code in codes if code not in set(split["test"])]
            share = min(data.validation_split * len(codes) / len(rest), 1.0)
            again = replace(data, split_folds=None, split_fold=0, train_split=1 - share, validation_split=share)
            split |= {**_by_hash(rest, groups, again, seed), "test": split["test"]}
    if data.split_folds and not split["test"]:
        raise SplitError(f"nothing to test on in fold {data.split_fold} of {data.split_folds}: choose fewer folds")
    if not dataset.judged(split["train"]):
        raise SplitError(
            f"none of {len(split['train'])} labels of the training set is an exact value, all are bounds; at least 1 "
            "is needed: raise train_split or set censored_labels = 'drop'"
        )
    num_judged = len(dataset.judged(split["validation"]))
    if num_judged < 2:
        raise SplitError(
            f"only {num_judged} of {len(split['validation'])} labels of the validation set are exact values and not "
            "bounds; at least 2 are needed: raise validation_split"
        )
    return split


def _by_hash(codes: Sequence[str], groups: Mapping[str, object], data: DataSettings, seed: int) -> Parts:
    if data.split == "random":
        return split_codes(codes, data, seed)
    return split_groups({code: groups[code] for code in codes}, data, seed)


def group_of_code(dataset: Dataset, data: DataSettings, similarity: Similarity) -> dict[str, object]:
    """Code -> name of the group that stays on one side of the split; empty where the split knows no groups."""
    if data.split not in ("cluster", "scaffold"):
        return {}
    labels = similarity.clusters(cluster_thresholds(data)).tolist() if data.split == "cluster" else _scaffolds(dataset)
    return {example.graph.code: label for example, label in zip(dataset.examples, labels, strict=True)}


def judged_part(dataset: Dataset, split: Mapping[str, Sequence[str]]) -> str:
    """The part that results are about: 'test', or 'validation' where no test complex has an exact label."""
    return "test" if dataset.judged(split["test"]) else "validation"


def check_leakage(
    dataset: Dataset, split: Mapping[str, Sequence[str]], similarity: Similarity, folder: Path | None = None
) -> list[LeakageRow]:
    """What a nearest neighbour would know of the complexes that results are about, those with an exact label.

    Codes of the split that the data set does not hold are left out.

    Args:
        folder: of the cache, where what was found is kept: at 20,000 complexes it takes the most of a start.
    """
    number = {example.graph.code: place for place, example in enumerate(dataset.examples)}
    train = [number[code] for code in split["train"] if code in number]
    judged = [number[example.graph.code] for example in dataset.judged(split[judged_part(dataset, split)])]
    path, key = folder and folder / LEAKAGE_FILE, similarity.digest(train, judged)
    known = read_kept(path, "counts", LEAKAGE_VERSION, "the leakage is found again") if path else {}
    if [type(count) for count in known.get(key, [])] != [int] * 3:
        known[key] = _count_known(train, judged, similarity)
        if path:
            with contextlib.suppress(StorageError):  # it is found again the next time
                write_json(path, {"version": LEAKAGE_VERSION, "counts": dict(list(known.items())[-MAX_KNOWN:])})
    labels = (
        f"have a training complex with sequence identity > {LEAK_LIMIT:g}",
        f"have a training complex with ligand similarity > {LEAK_LIMIT:g}",
        "have a training complex with both",
    )
    rows = [LeakageRow(label, n, len(judged)) for label, n in zip(labels, known[key], strict=True)]
    unknown, unknown_train = (sum(not similarity.chains_of[n] for n in part) for part in (judged, train))
    if unknown or unknown_train:  # the rows above do not say what these share with others
        label = f"have no protein sequence to compare, nor have {unknown_train} of {len(train)} training complexes"
        rows.append(LeakageRow(label, unknown, len(judged)))
    return rows


def _count_known(train: Sequence[int], judged: Sequence[int], similarity: Similarity) -> list[int]:
    """How many of the judged have a training complex alike in sequence, in ligand, in both."""
    alike = np.zeros((len(judged), 3), dtype=bool)
    for row, one in enumerate(judged):
        same_ligand = [train[n] for n in np.flatnonzero(similarity.tanimoto(one, train) > LEAK_LIMIT)]
        both = similarity.has_identity_above(one, same_ligand, LEAK_LIMIT)
        alike[row] = both or similarity.has_identity_above(one, train, LEAK_LIMIT), bool(same_ligand), both
    return alike.sum(0).tolist()


def split_text(split: Mapping[str, Sequence[str]], data: DataSettings, leakage: Iterable[LeakageRow], part: str) -> str:
    """A few lines: sizes, and how many complexes of the judged part are known from training."""
    sizes = ", ".join(f"{len(codes)} {name}" for name, codes in split.items())
    fold = f", fold {data.split_fold} of {data.split_folds}" if data.split_folds else ""
    leaks = " (it leaks: similar complexes stand on both sides, new targets will do worse)"
    lines = [f"{data.split} split{fold}: {sizes}{leaks if data.split == 'random' else ''}"]
    return "\n".join([*lines, *(f"  of the {part} set {row}" for row in leakage)])


def every_split_text(settings: Settings, dataset: Dataset) -> str:
    """What split_text says of every way to part this data set, or why one is not possible."""
    similarity, seed, texts = compare_complexes(dataset, settings.processing), settings.training.seed, []
    for method in ("random", "time", "cluster", "scaffold", *["file"] * (settings.data.split == "file")):
        own = {} if method == "file" else {"split": method, "split_file": None}
        data = replace(settings.data, **own, **({"split_fold": 0} if settings.data.split_fold == "all" else {}))
        try:
            codes = split_dataset(dataset, data, seed, similarity)
        except SplitError as error:
            texts.append(f"{method} split: not possible: {error}")
            continue
        leakage = check_leakage(dataset, codes, similarity, Path(settings.processing.processed_data_dir))
        texts.append(split_text(codes, data, leakage, judged_part(dataset, codes)))
    return "\n".join(texts)


def split_codes(codes: Sequence[str], data: DataSettings, seed: int) -> Parts:
    """Random split into train, validation and test by a hash of seed and code.

    The order of the index does not matter, and a complex that is added moves no more than the borders.

    Raises:
        SplitError: when a part that is needed would be empty.
    """
    ranked = sorted(codes, key=_hash_of(seed))
    if data.split_folds:
        folds = [ranked[fold :: data.split_folds] for fold in range(data.split_folds)]
        test = folds.pop(data.split_fold)
        ranked = [code for code in ranked if code not in set(test)]
        num_train = len(ranked) - min(round(data.validation_split * len(codes)), len(ranked))
        return _checked({"train": ranked[:num_train], "validation": ranked[num_train:], "test": test}, len(codes))
    first, second = _borders(len(ranked), data)
    split = {"train": ranked[:first], "validation": ranked[first:second], "test": ranked[second:]}
    return _checked(split, len(codes))


def cluster_thresholds(data: DataSettings) -> Thresholds:
    """How alike complexes of one cluster are, by the settings."""
    return Thresholds(data.cluster_sequence_identity, data.cluster_ligand_similarity, data.cluster_same_protein)


def split_groups(group_of: Mapping[str, object], data: DataSettings, seed: int) -> Parts:
    """Whole groups to each part, in the order of a hash of seed and their first code.

    Test and validation take groups until they are as large as asked for. No group larger than MAX_CLUSTER of a part
    goes there, unless the part cannot be filled otherwise; what is left trains.
    """
    groups: dict[object, list[str]] = defaultdict(list)
    for code in sorted(group_of):
        groups[group_of[code]].append(code)
    hash_of = _hash_of(seed)
    ranked = sorted(groups.values(), key=lambda members: hash_of(members[0]))
    wanted = {"validation": round(data.validation_split * len(group_of))}
    split: Parts = {"train": [], "validation": [], "test": []}
    if data.split_folds:
        folds = _balanced(ranked, data.split_folds)
        split["test"] = sorted(code for members in folds.pop(data.split_fold) for code in members)
        ranked = [members for members in ranked if members[0] not in set(split["test"])]
    else:
        first, second = _borders(len(group_of), data)
        wanted = {"validation": second - first, "test": len(group_of) - second}
    for part in reversed(wanted):  # first the test set
        ranked = _fill(split[part], ranked, wanted[part])
    split["train"] = [code for members in ranked for code in members]
    return _checked(split, len(group_of), f"in {len(groups)} groups, the largest of {max(map(len, groups.values()))},")


def split_by_year(year_of: Mapping[str, int | None], data: DataSettings) -> Parts:
    """The oldest years train, the newest test; no year stands on two sides, so sizes follow the years.

    Complexes without a year train.

    Raises:
        SplitError: too few different years.
    """
    years = sorted({year for year in year_of.values() if year is not None})
    unknown = [code for code, year in year_of.items() if year is None]
    if unknown:
        log.warning("%d complexes without a release year are used for training, such as %s", len(unknown), unknown[0])
    counts = [sum(year == one for year in year_of.values()) for one in years]
    total = list(accumulate(counts, initial=len(unknown)))  # complexes before the n-th year
    if data.split_folds:
        end = total[_nearest(total, total[-1] * (data.split_fold + 2) / (data.split_folds + 1))]
        first = total[-1] * (data.split_fold + 1) / (data.split_folds + 1)
        borders = (first - data.validation_split * first, first, end)
    else:
        in_training = data.train_split * total[-1]
        borders = (in_training, in_training + data.validation_split * total[-1], total[-1])
    start_validation, start_test, stop = (_nearest(total, border) for border in borders)
    # A year is not cut: where the fractions fall into one year, the parts take the next ones.
    if stop > 2 and borders[1] < borders[2]:
        start_test = min(start_test, stop - 1)
    start_test = max(start_test, 1)
    start_validation = min(start_validation, start_test - 1)
    split: Parts = {"train": list(unknown), "validation": [], "test": []}
    place_of = {year: place for place, year in enumerate(years)}
    for code, year in year_of.items():
        place = -1 if year is None else place_of[year]
        if place < stop:
            part = "train" if place < start_validation else "validation" if place < start_test else "test"
            if year is not None:
                split[part].append(code)
    return _checked(split, len(year_of), f"of {len(years)} release years")


def _listed(codes: Sequence[str], data: DataSettings, seed: int) -> Parts:
    """The lists of a file; a validation set that it does not name is drawn from its training codes."""
    try:
        split = read_split_file(Path(data.split_file), codes)
    except SplitFileError as error:
        raise SplitError(str(error)) from error
    ranked = sorted(split["train"], key=_hash_of(seed))
    if data.split_folds:
        ranked = sorted([*ranked, *split["validation"]], key=_hash_of(seed))
        split["validation"] = ranked[data.split_fold :: data.split_folds]
    elif not split["validation"]:
        count = round(data.validation_split / (data.train_split + data.validation_split) * len(ranked))
        split["validation"] = ranked[len(ranked) - count :]
    held_out = set(split["validation"])
    split["train"] = [code for code in ranked if code not in held_out]
    return _checked(split, len(codes))


def _scaffolds(dataset: Dataset) -> list[str]:
    graphs = [example.graph for example in dataset.examples]
    known = {text: scaffold(text) for text in {graph.smiles for graph in graphs}}
    return [known[graph.smiles] or f"no ring: {graph.smiles or graph.code}" for graph in graphs]


def _fill(part: list[str], groups: list[list[str]], wanted: int) -> list[list[str]]:
    """Move groups into a part until it holds as many codes as wanted; returns the groups that are left."""
    for limit in (MAX_CLUSTER * wanted, wanted):
        left = []
        for members in groups:
            if len(members) <= max(limit, 1) and len(part) + len(members) <= wanted:
                part += members
            else:
                left.append(members)
        groups = left
    return groups


def _balanced(groups: Sequence[list[str]], num_folds: int) -> list[list[list[str]]]:
    """Folds of whole groups, the largest first into the smallest fold."""
    folds: list[list[list[str]]] = [[] for _ in range(num_folds)]
    sizes = [0] * num_folds
    for members in sorted(groups, key=len, reverse=True):
        smallest = sizes.index(min(sizes))
        folds[smallest].append(members)
        sizes[smallest] += len(members)
    return folds


def _borders(count: int, data: DataSettings) -> tuple[int, int]:
    """Where validation and where the test set begin; fractions that add up to 1 leave no test set, for any count."""
    first = round(data.train_split * count)
    if math.isclose(data.train_split + data.validation_split, 1):
        return first, count  # each rounded alone, 0.9 and 0.1 of 25 are 22 and 2
    return first, min(first + round(data.validation_split * count), count)


def _hash_of(seed: int) -> Callable[[str], bytes]:
    return lambda code: hashlib.sha256(f"{seed}:{code}".encode()).digest()


def _nearest(totals: Sequence[int], wanted: float) -> int:
    return int(np.argmin(np.abs(np.array(totals) - wanted)))


def _checked(split: Parts, count: int, grouped: str = "") -> Parts:
    if len(split["train"]) < 2 or len(split["validation"]) < 2:
        raise SplitError(
            f"{f'{count} usable complexes {grouped}'.strip()} give {len(split['train'])} to train and "
            f"{len(split['validation'])} to validate on; both need at least 2"
        )
    return {part: sorted(members) for part, members in split.items()}
