"""Which complexes train, validate and test, and what a test set shares with training."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import src.similarity.splits as splits_module
from src.data.dataset import Dataset, DatasetError, Example
from src.evaluation.findings import LeakageRow
from src.pdbbind.affinity import IndexEntry
from src.pdbbind.folders import ComplexFiles
from src.settings import DataSettings, SettingsError
from src.similarity.comparison import Similarity
from src.similarity.splits import (
    SplitError,
    check_leakage,
    compare_complexes,
    judged_part,
    split_by_year,
    split_codes,
    split_dataset,
    split_groups,
    split_text,
)
from tests.complexes import small_settings, write_dataset
from tests.similarity.relatives import ASPIRIN, CAFFEINE, PARACETAMOL, draw, mutated
from tests.training_runs import CODES, Run

METHODS = ["random", "time", "cluster", "scaffold"]
LIGANDS = [ASPIRIN, PARACETAMOL, CAFFEINE, "CCO", "c1ccc2ccccc2c1", "C1CCNCC1", "c1ccsc1", "c1ccoc1", "C1CCOC1", "CCN"]


def settings(**changes: object) -> DataSettings:
    return small_settings(Path("/nowhere"), **{"train_split": 0.8, "validation_split": 0.1, **changes}).data


def names(count: int) -> list[str]:
    return [f"c{number:03}" for number in range(count)]


def made(chains: Sequence[Sequence[str]], smiles: Sequence[str]) -> tuple[Dataset, Similarity]:
    """A data set of which only codes, ligands and years are looked at; four complexes of each year."""
    examples = tuple(
        Example(SimpleNamespace(code=code, smiles=one), 5.0)  # type: ignore[arg-type]
        for code, one in zip(names(len(smiles)), smiles, strict=True)
    )
    entries = {
        code: IndexEntry(code, 2.0, 1990 + place // 4, "Kd", "=", 1e-5, "", "")
        for place, code in enumerate(names(len(smiles)))
    }
    return Dataset(examples, (), 0, None, {}, entries), Similarity(chains, smiles)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def families() -> tuple[Dataset, Similarity]:
    """100 complexes: 30 families of proteins, of 10, 8, 6, 4 or 2 members (or 1 to 3), ten ligands."""
    sizes = [10, 8, 8, 6, 6, 4, 4, 4, 4, 4, *[3] * 8, *[2] * 6, *[1] * 6]
    chains = [[mutated(draw(family), 0.02, seed=n)] for family, size in enumerate(sizes) for n in range(size)]
    assert len(chains) == 100
    return made(chains, [LIGANDS[n % 10] for n in range(100)])


def parts_of(split: dict[str, list[str]]) -> dict[str, str]:
    return {code: part for part, codes in split.items() for code in codes}


# Every split


@pytest.mark.parametrize("method", METHODS)
def test_every_code_has_one_part_and_sizes_are_near_what_is_asked_for(families, method: str) -> None:
    dataset, similarity = families
    split = split_dataset(dataset, settings(split=method), 1, similarity)
    assert sorted(code for codes in split.values() for code in codes) == names(100)
    assert all(codes == sorted(codes) for codes in split.values())
    assert abs(len(split["train"]) - 80) <= 6
    assert abs(len(split["validation"]) - 10) <= 4
    assert abs(len(split["test"]) - 10) <= 4


@pytest.mark.parametrize("method", METHODS)
def test_a_split_is_a_function_of_data_settings_and_seed(families, method: str) -> None:
    dataset, similarity = families
    split = split_dataset(dataset, settings(split=method), 1, similarity)
    assert split_dataset(dataset, settings(split=method), 1, similarity) == split
    assert (split_dataset(dataset, settings(split=method), 2, similarity) == split) == (method == "time")


@pytest.mark.parametrize("folds", [{}, {"split_folds": 5, "split_fold": 2}])
@pytest.mark.parametrize("method", METHODS)
def test_members_share_the_test_set_and_differ_in_validation(families, method: str, folds: dict) -> None:
    dataset, similarity = families
    changes = settings(split=method, split_seed=1, **folds)
    first, *others = (split_dataset(dataset, changes, seed, similarity) for seed in (1, 2, 3, 4))
    assert first == split_dataset(dataset, settings(split=method, **folds), 1, similarity)
    assert all(other["test"] == first["test"] for other in others)
    if method in ("random", "time"):  # of the others few groups fit into a set of ten
        assert all(other["validation"] == first["validation"] for other in others) == (method == "time")
    for other in others:
        assert sorted(other["train"] + other["validation"]) == sorted(first["train"] + first["validation"])
        assert abs(len(other["validation"]) - len(first["validation"])) <= 4


@pytest.mark.parametrize("method", ["random", "cluster"])
def test_without_a_test_set_a_member_has_the_split_of_its_own_seed(families, method: str) -> None:
    dataset, similarity = families
    whole = {"split": method, "train_split": 0.9, "validation_split": 0.1}
    member = split_dataset(dataset, settings(**whole, split_seed=1), 2, similarity)
    assert member == split_dataset(dataset, settings(**whole), 2, similarity)


@pytest.mark.parametrize("method", ["random", "cluster", "scaffold"])
def test_folds_test_every_complex_once(families, method: str) -> None:
    dataset, similarity = families
    splits = [
        split_dataset(dataset, settings(split=method, split_folds=5, split_fold=n), 1, similarity) for n in range(5)
    ]
    assert sorted(code for split in splits for code in split["test"]) == names(100)
    for split in splits:
        assert sorted(code for codes in split.values() for code in codes) == names(100)
        assert len(split["validation"]) == pytest.approx(10, abs=4)
        if method != "scaffold":  # two of the ten ligands share a scaffold and two have none
            assert len(split["test"]) == pytest.approx(20, abs=2)


@pytest.mark.parametrize("folds", [None, 5])
def test_no_cluster_stands_on_two_sides(families, folds: int | None) -> None:
    dataset, similarity = families
    data = settings(split="cluster", split_folds=folds)
    part_of = parts_of(split_dataset(dataset, data, 3, similarity))
    family_of = [chains[0] for chains in similarity.chains_of]
    linked = [
        (one, other)
        for one in range(100)
        for other in range(one)
        if similarity.chain_identity(family_of[one], family_of[other]) > 0.9
    ]
    assert len(linked) > 150
    assert all(part_of[names(100)[one]] == part_of[names(100)[other]] for one, other in linked)
    assert check_leakage(dataset, split_dataset(dataset, data, 3, similarity), similarity)[0].count == 0


def test_no_scaffold_stands_on_two_sides(families) -> None:
    dataset, similarity = families
    part_of = parts_of(
        split_dataset(dataset, settings(split="scaffold", validation_split=0.2, train_split=0.6), 1, similarity)
    )
    benzenes = {
        part_of[example.graph.code] for example in dataset.examples if example.graph.smiles in (ASPIRIN, PARACETAMOL)
    }
    assert len(benzenes) == 1
    ringless = {part_of[example.graph.code] for example in dataset.examples if example.graph.smiles == "CCO"}
    assert len(ringless) == 1


def test_a_large_group_trains_unless_nothing_else_is_there() -> None:
    groups = {code: "large" if place < 9 else code for place, code in enumerate(names(100))}
    for seed in range(20):
        assert set(names(9)) <= set(split_groups(groups, settings(), seed)["train"])
    halves = {code: place // 10 for place, code in enumerate(names(100))}
    split = split_groups(halves, settings(), 0)
    assert [len(codes) for codes in split.values()] == [80, 10, 10]


def test_one_cluster_cannot_be_split() -> None:
    with pytest.raises(SplitError, match=r"100 usable complexes in 1 groups, the largest of 100, give 100 to train"):
        split_groups(dict.fromkeys(names(100), 0), settings(), 0)


def test_more_folds_than_groups_are_refused(families) -> None:
    with pytest.raises(SplitError, match="nothing to test on in fold 20 of 21: choose fewer folds"):
        split_dataset(families[0], settings(split="scaffold", split_folds=21, split_fold=20), 1, families[1])


# Random


def test_the_random_split_has_every_code_once() -> None:
    split = split_codes(names(100), settings(), seed=1)
    assert sorted(split["train"] + split["validation"] + split["test"]) == names(100)
    assert [len(part) for part in split.values()] == [80, 10, 10]


def test_the_random_split_depends_on_codes_and_seed_not_on_their_order() -> None:
    split = split_codes(names(100), settings(), seed=1)
    assert split_codes(names(100)[::-1], settings(), seed=1) == split
    assert split_codes(names(100), settings(), seed=2) != split


def test_a_new_complex_moves_only_the_borders_of_the_split() -> None:
    before, after = (parts_of(split_codes(codes, settings(), seed=1)) for codes in (names(100), [*names(100), "new"]))
    assert sum(before[code] != after[code] for code in names(100)) <= 2


def test_no_more_than_all_complexes_are_split() -> None:
    split = split_codes(names(5), settings(train_split=0.5, validation_split=0.5), seed=0)
    assert sum(map(len, split.values())) == 5


@pytest.mark.parametrize("count", [25, 45, 2345])
@pytest.mark.parametrize("train", [0.5, 0.7, 0.9])
def test_fractions_that_add_up_to_one_leave_no_test_set(count: int, train: float) -> None:
    data = settings(train_split=train, validation_split=1 - train)
    alone = {code: code for code in names(count)}
    for split in (split_codes(names(count), data, seed=0), split_groups(alone, data, seed=0)):
        assert [len(split["train"]), len(split["test"])] == [round(train * count), 0]


@pytest.mark.parametrize("count", [0, 1, 2, 5, 14])
def test_too_few_complexes_are_refused_with_the_numbers(count: int) -> None:
    with pytest.raises(DatasetError, match=rf"{count} usable complexes give {round(0.8 * count)} to train"):
        split_codes(names(count), settings(), seed=0)


# Time


def test_training_is_older_than_validation_and_validation_older_than_test() -> None:
    year_of = {code: 1980 + place * 7 % 40 for place, code in enumerate(names(200))}
    split = split_by_year(year_of, settings())
    years = {part: {year_of[code] for code in codes} for part, codes in split.items()}
    assert max(years["train"]) < min(years["validation"]) <= max(years["validation"]) < min(years["test"])
    assert [len(codes) for codes in split.values()] == [160, 20, 20]


def test_folds_of_time_go_forward_and_test_each_later_year_once() -> None:
    year_of = {code: 1980 + place % 24 for place, code in enumerate(names(240))}
    splits = [split_by_year(year_of, settings(split_folds=5, split_fold=fold)) for fold in range(5)]
    for split in splits:
        years = {part: {year_of[code] for code in codes} for part, codes in split.items()}
        assert max(years["train"]) < min(years["validation"]) <= max(years["validation"]) < min(years["test"])
    assert sorted(c for split in splits for c in split["test"]) == sorted(c for c in year_of if year_of[c] >= 1984)


def test_complexes_without_a_year_train(caplog: pytest.LogCaptureFixture) -> None:
    year_of = {code: None if place < 3 else 1980 + place // 10 for place, code in enumerate(names(100))}
    assert set(names(3)) <= set(split_by_year(year_of, settings())["train"])
    assert "3 complexes without a release year are used for training, such as c000" in caplog.text


@pytest.mark.parametrize("years", [0, 1])
def test_too_few_years_are_refused(years: int) -> None:
    with pytest.raises(SplitError, match=f"100 usable complexes of {years} release years give"):
        split_by_year(dict.fromkeys(names(100), 2000 if years else None), settings())


# Lists


def listed(folder: Path, lists: dict[str, object], **changes: object) -> DataSettings:
    path = folder / "split.json"
    path.write_text(json.dumps(lists))
    return settings(split="file", split_file=str(path), **changes)


def test_lists_are_followed(tmp_path: Path, families) -> None:
    lists = {"train": names(50), "val": names(60)[50:], "test": ["C060", "c061"]}
    split = split_dataset(families[0], listed(tmp_path, lists), 0, families[1])
    assert split == {"train": names(50), "validation": names(60)[50:], "test": ["c060", "c061"]}


def test_the_rest_trains_and_a_validation_set_is_drawn_from_it(tmp_path: Path, families) -> None:
    split = split_dataset(families[0], listed(tmp_path, {"test": names(10)}), 0, families[1])
    assert split["test"] == names(10)
    assert sorted(split["train"] + split["validation"]) == names(100)[10:]
    assert len(split["validation"]) == 10


def test_folds_of_a_file_keep_its_test_set(tmp_path: Path, families) -> None:
    splits = [
        split_dataset(
            families[0], listed(tmp_path, {"test": names(10)}, split_folds=3, split_fold=fold), 0, families[1]
        )
        for fold in range(3)
    ]
    assert [split["test"] for split in splits] == [names(10)] * 3
    assert sorted(code for split in splits for code in split["validation"]) == names(100)[10:]


def test_a_fault_of_the_lists_ends_the_run_with_its_reason(tmp_path: Path, families) -> None:
    with pytest.raises(DatasetError, match=r"split\.json: none of the test codes is in the data set: 1abc, 2abc"):
        split_dataset(families[0], listed(tmp_path, {"test": ["1abc", "2abc"]}), 0, families[1])


def test_a_training_set_of_bounds_alone_is_refused(families) -> None:
    dataset, similarity = families
    bounds = dataclasses.replace(dataset, examples=tuple(replaced(one, 1) for one in dataset.examples))
    with pytest.raises(SplitError, match="none of 80 labels of the training set is an exact value"):
        split_dataset(bounds, settings(), 1, similarity)


# Leakage


def replaced(example: Example, bound: int) -> Example:
    return dataclasses.replace(example, bound=bound)


def test_results_and_leakage_are_about_the_same_complexes() -> None:
    """Of four, a and b train; c, which is a in all, validates; d and e test."""
    dataset, similarity = made([[draw(n)] for n in (0, 1, 0, 2, 0)], [ASPIRIN, CAFFEINE, ASPIRIN, "CCO", ASPIRIN])
    one, two, three, four, five = names(5)
    split = {"train": [one, two], "validation": [three], "test": [four, five]}
    bound = dict.fromkeys((five,), 1)
    for more, part, counts in (({}, "test", (0, 1)), ({four: -1}, "validation", (1, 1))):
        signs = bound | more
        labelled = dataclasses.replace(
            dataset, examples=tuple(replaced(e, signs.get(e.graph.code, 0)) for e in dataset.examples)
        )
        assert judged_part(labelled, split) == part
        assert {(row.count, row.total) for row in check_leakage(labelled, split, similarity)} == {counts}
    text = split_text(split, settings(), [LeakageRow("have a twin", 1, 1)], "validation")
    assert "  of the validation set 1 of 1 have a twin" in text


def test_what_is_known_from_training_is_counted() -> None:
    one, other = draw(1), draw(2)
    same = mutated(one, 0.05)
    chains = [[one], [other], [same], [same], [draw(3)], [draw(4)], [draw(5)]]
    smiles = [ASPIRIN, CAFFEINE, ASPIRIN, PARACETAMOL, CAFFEINE, "CCO", ASPIRIN]
    dataset, similarity = made(chains, smiles)
    codes = names(7)
    split = {"train": codes[:2], "validation": codes[6:], "test": [*codes[2:6], "gone"]}
    # c002 has c000 in both, c003 its protein, c004 the ligand of c001, c005 nothing.
    rows = check_leakage(dataset, split, similarity)
    assert [(row.count, row.total) for row in rows] == [(2, 4), (2, 4), (1, 4)]
    # Protein of one and ligand of another training complex are not both.
    crossed = {"train": [codes[1], codes[3]], "validation": [], "test": [codes[0], codes[4]]}
    dataset_crossed, similarity_crossed = made(chains, [CAFFEINE, *smiles[1:]])
    rows = check_leakage(dataset_crossed, crossed, similarity_crossed)
    assert [row.count for row in rows] == [1, 2, 0]
    judged = {"train": codes[:2], "validation": [codes[6]], "test": []}
    assert [(row.count, row.total) for row in check_leakage(dataset, judged, similarity)] == [(0, 1), (1, 1), (0, 1)]


def test_proteins_without_a_sequence_are_counted_beside_the_leakage() -> None:
    dataset, similarity = made([[draw(1)], [], [], [draw(2)]], [ASPIRIN, CAFFEINE, ASPIRIN, CAFFEINE])
    codes = names(4)
    rows = check_leakage(dataset, {"train": codes[:2], "validation": [], "test": codes[2:]}, similarity)
    label = "have no protein sequence to compare, nor have 1 of 2 training complexes"
    assert rows[3:] == [LeakageRow(label, 1, 2)]
    rows = check_leakage(dataset, {"train": codes[:1], "validation": [], "test": codes[3:]}, similarity)
    assert len(rows) == 3


def test_proteins_without_a_sequence_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset, _ = made([[], []], [ASPIRIN, CAFFEINE])
    without = {code: ComplexFiles(code, None, None, ()) for code in names(2)}
    compare_complexes(replace(dataset, files=without), small_settings(tmp_path).processing)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("2 of 2 complexes have no amino acid sequence")


def test_the_lines_say_sizes_leaks_and_that_random_leaks() -> None:
    split = {"train": names(5), "validation": [], "test": ["a", "b"]}
    text = split_text(split, settings(), [LeakageRow("have a twin", 1, 2)], "test")
    assert text.splitlines() == [
        "random split: 5 train, 0 validation, 2 test "
        "(it leaks: similar complexes stand on both sides, new targets will do worse)",
        "  of the test set 1 of 2 have a twin",
    ]
    assert split_text(split, settings(split="time", split_folds=3, split_fold=1), [], "test") == (
        "time split, fold 1 of 3: 5 train, 0 validation, 2 test"
    )


# Settings, and a whole run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "file"}, "split = 'file' and split_file = None"),
        ({"split_file": "lists.json"}, "split = 'random' and split_file = 'lists.json'"),
        ({"split_fold": 1}, "split_fold = 1 must be below split_folds = None"),
        ({"split_folds": 3, "split_fold": 3}, "split_fold = 3 must be below split_folds = 3"),
        ({"split": "clusters"}, "must be one of 'random', 'time', 'cluster', 'scaffold', 'file'"),
    ],
)
def test_settings_that_contradict_each_other(changes: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings(**changes)


def test_a_run_with_lists_says_what_leaks_and_refuses_others_on_resume(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_dataset(tmp_path / "data", CODES)
    (tmp_path / "test.txt").write_text("# held out\n" + "\n".join(CODES[:4]))
    run = Run(tmp_path)
    lists = {"split": "file", "split_file": str(tmp_path / "test.txt"), "epochs": 1}
    with caplog.at_level("INFO"):
        assert run.train(**lists) == 0
    # All complexes of this set are one protein with one ligand.
    assert "of the test set 4 of 4 have a training complex with both" in caplog.text
    assert "identity is that of pockets" in caplog.text
    record = json.loads((run.results / "splits.json").read_text())
    assert record["method"] == "file"
    assert record["parts"]["test"] == CODES[:4]
    assert [row["count"] for row in record["leakage"]] == [4, 4, 4]
    (tmp_path / "test.txt").write_text("\n".join(CODES[1:5]))
    assert run.train(**{**lists, "epochs": 2}) == 2
    assert "codes, labels or their split" in caplog.text


def test_one_cluster_ends_a_run_with_the_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_dataset(tmp_path / "data", CODES)
    assert Run(tmp_path).train(split="cluster") == 2
    assert "16 usable complexes in 1 groups" in caplog.text


def test_what_was_found_of_a_split_is_kept_and_of_another_found_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    counted: list[int] = []
    real = splits_module._count_known

    def count(*parts: object) -> list[int]:
        counted.append(1)
        return real(*parts)

    monkeypatch.setattr(splits_module, "_count_known", count)
    dataset, similarity = made([[draw(1)], [draw(2)], [draw(1)], [draw(3)]], [ASPIRIN, CAFFEINE, ASPIRIN, CAFFEINE])
    codes = names(4)

    def leakage(train: list[str], test: list[str]) -> list[int]:
        split = {"train": train, "validation": [], "test": test}
        return [row.count for row in check_leakage(dataset, split, similarity, tmp_path)]

    first = leakage(codes[:2], codes[2:])
    assert first == leakage(codes[:2], codes[2:]) == [1, 2, 1]
    assert len(counted) == 1
    assert leakage(codes[1:2], codes[2:]) == [0, 1, 0]
    assert leakage(codes[:2], codes[3:]) == [0, 1, 0]
    assert len(counted) == 3
    (tmp_path / "leakage.json").write_text('{"version": 1, "counts": 5}')
    assert leakage(codes[:2], codes[2:]) == first
    assert "leakage.json cannot be read" in caplog.text
    assert len(counted) == 4
