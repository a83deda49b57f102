"""A checkpoint, a data set and its split -> the findings on its test set, and the files of the results folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import DataStructs

from src.checkpoint import FOR_PREDICTION, LATEST, CheckpointError, load_checkpoint
from src.data.batching import batch_budget, in_order
from src.data.dataset import Dataset, DatasetError, Example, measured_pk
from src.evaluation.baselines import baseline_predictions, ridge_ligands
from src.evaluation.calibration import FACTS
from src.evaluation.findings import (
    Findings,
    Judged,
    JudgedPart,
    Run,
    Split,
    compute_findings,
    coverage_text,
    metrics_json,
    predictions_table,
    read_predictions,
    require_common,
    split_json,
)
from src.evaluation.metrics import results_table
from src.evaluation.model_card import model_card
from src.evaluation.report import report_page
from src.gaussian_process.joined_model import JUDGED, JoinedModel, Judge, ScoringModel
from src.hardware.inference import predict_batches
from src.hardware.out_of_memory import TooLargeError
from src.pdbbind.index import write_skipped
from src.run.casf_scoring import CasfScores, score_casf
from src.run.run_record import FREE_KEYS
from src.scoring.ensemble import Scorer, load_scorer
from src.scoring.trust import half_widths
from src.settings import Settings, read_settings
from src.similarity.comparison import Similarity, fingerprints
from src.similarity.splits import group_of_code, judged_part
from src.system.storage import write_csv, write_json, write_text
from src.system.terminal import listed

log = logging.getLogger(__name__)

# What must be in a checkpoint beside its model.
RECORDED = FOR_PREDICTION | {"config", "versions", "dataset"}


def settings_of_run(settings: Settings, state: Mapping[str, Any], root: Path) -> Settings:
    """The settings a checkpoint was trained with; those that a run may change, such as folders, as they are now.

    Where no data set is set now, it is that of the training.

    Raises:
        SettingsError: a setting of the checkpoint is out of range for this program.
    """
    now, then = settings.config, state["config"]
    config = {key: value if key in FREE_KEYS else then.get(key, value) for key, value in now.items()}
    if now["dataset_path"] in (None, then.get("dataset_path")):
        config["dataset_path"] = then.get("dataset_path")
        config["index_file"] = now["index_file"] or then.get("index_file")
    return read_settings(config, root=root)


@dataclass(frozen=True)
class Request:
    """What an evaluation is asked for beside the scores of the test set."""

    command: str  # writes the same results again
    compare: Path | None = None  # a table of other predictions
    casf: Path | None = None  # root of CASF-2016, for its four powers


def evaluate_checkpoint(
    checkpoint: Path, settings: Settings, dataset: Dataset, split: Split, similarity: Similarity, request: Request
) -> Findings:
    """Score the test set of a split (its validation set if there is none) with a checkpoint, beside the baselines.

    Args:
        similarity: of all examples, as they stand in the data set.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        DatasetError: the data set holds no complex to train on, or none to judge.
        ComparisonError: the table to compare with cannot be used.
        CasfError: the benchmark is not there.
        TooLargeError: no complex fits into memory.
    """
    other = (str(request.compare), read_predictions(request.compare)) if request.compare else None
    scorer, state = load_scorer(checkpoint, settings.training.device), load_checkpoint(checkpoint, required=RECORDED)
    part = judged_part(dataset, split.codes)
    train, test = _train_and_test(settings, dataset, split, part)
    if state["dataset"].get("fingerprint") != dataset.fingerprint():
        log.warning("the data are not those of the training: numbers will differ from those written then")
    if other:
        require_common(_codes(test), *other)  # before the hour that predictions may take
    told, left_out = _predict(scorer, settings, test)
    kept = [place for place in range(len(test)) if place not in left_out]
    if not kept:
        raise TooLargeError(f"no complex of the {part} set fits into memory: {listed(sorted(_codes(test)))}")
    scored = [test[place] for place in kept]
    groups = group_of_code(dataset, settings.data, similarity)
    # A protein is named after the first complex that has it.
    firsts = similarity.targets(_numbers(dataset, scored), settings.data.cluster_same_protein)
    targets = [f"as in {dataset.examples[first].graph.code}" for first in firsts]
    trained_on = {*split.codes["train"], *split.codes["validation"]}
    casf = score_casf(scorer, request.casf, trained_on=trained_on) if request.casf else CasfScores()
    return compute_findings(
        _judged(dataset, scorer, scored, told[kept], groups, targets, is_calibrated=part == "test"),
        _baselines(train, scored, _nearest(dataset, similarity, train, scored)),
        JudgedPart(
            part, split, (*dataset.skipped, *casf.skipped), left_out=[test[place].graph.code for place in left_out]
        ),
        _run(scorer, checkpoint, state, request.command),
        other=other,
        powers=casf.powers,
    )


def write_results(folder: Path, findings: Findings) -> None:
    """metrics.json, <part>_predictions.csv, skipped.csv, splits.json, model_card.md and report.html.

    Raises:
        StorageError: the disk does not take a file.
    """
    write_json(folder / "metrics.json", metrics_json(findings))
    write_csv(folder / f"{findings.part.name}_predictions.csv", *predictions_table(findings))
    write_skipped(folder, findings.part.skipped)
    write_json(folder / "splits.json", split_json(findings.part.split))
    write_text(folder / "model_card.md", model_card(findings))
    write_text(folder / "report.html", report_page(findings))


def results_text(findings: Findings) -> str:
    judged = len(findings.judged.codes)
    part = findings.part
    missing = f" ({len(part.left_out)} left out: they do not fit into memory)" if part.left_out else ""
    parts = [
        f"{part.name} set, {judged} complexes{missing}, 95% bootstrap intervals from resampling "
        f"{findings.judged.resampled}:\n{results_table(findings.table)}"
    ]
    if findings.coverage:
        parts.append(coverage_text(findings.coverage))
    if comparison := findings.comparison:
        lines = [f"  {name:<14}{difference}" for name, difference in comparison.metrics.items()]
        title = f"this model minus {comparison.source}, {comparison.count} complexes in both:"
        parts.append("\n".join([title, *lines]))
    for name, row in findings.powers.items():
        parts.append("\n".join([f"{name}:", *(f"  {metric:<18}{value}" for metric, value in row.items())]))
    return "\n\n".join(parts)


def _train_and_test(
    settings: Settings, dataset: Dataset, split: Split, part: str
) -> tuple[list[Example], list[Example]]:
    """The examples with exact labels of the training set, and of the part to judge.

    Raises:
        DatasetError: one of the two is empty.
    """
    missing = set(split.codes[part]) - {example.graph.code for example in dataset.examples}
    if missing:
        log.warning("%d complexes of the %s set are not in the data: %s", len(missing), part, listed(sorted(missing)))
    train, test = dataset.judged(split.codes["train"]), dataset.judged(split.codes[part])
    if not train or not test:
        place, names = settings.data.dataset_path, "test and validation codes" if train else "training codes"
        raise DatasetError(f"none of the {names} of the split is in {place} with an exact label: set dataset_path")
    return train, test


def _predict(scorer: Scorer, settings: Settings, test: Sequence[Example]) -> tuple[np.ndarray, list[int]]:
    """What the model says of each complex, [n, len(JUDGED)], and the places of those that do not fit."""
    left_out: list[int] = []
    batches = in_order(test, settings.training.batch_size, batch_budget(settings.training))
    told, _ = predict_batches(Judge(scorer.model), batches, scorer.device, left_out=left_out)
    return told.astype(np.float64), left_out


def _nearest(dataset: Dataset, similarity: Similarity, train: Sequence[Example], test: Sequence[Example]) -> np.ndarray:
    """Number, within train, of the training complex most alike to each test complex; -1 where none is, [len(test)]."""
    pool = _numbers(dataset, train)
    place_of = {one: place for place, one in enumerate(pool)}
    found = [similarity.nearest(number, pool) for number in _numbers(dataset, test)]
    return np.array([place_of[one.number] if one.identity + one.tanimoto > 0 else -1 for one in found], dtype=int)


def _baselines(train: Sequence[Example], test: Sequence[Example], nearest: np.ndarray) -> dict[str, np.ndarray]:
    def both(fact: Any) -> tuple[np.ndarray, np.ndarray]:
        return np.array([fact(e.graph) for e in train]), np.array([fact(e.graph) for e in test])

    known, asked = (fingerprints([e.graph.smiles for e in part]) for part in (train, test))
    few = known[ridge_ligands(len(known))]
    sizes, contacts = both(lambda graph: graph.num_ligand_atoms), both(lambda graph: graph.contacts.shape[1])
    facts = {"ligand size": sizes, "contact count": contacts}
    ligands = _tanimoto(few, few), _tanimoto(asked, known)
    return baseline_predictions(measured_pk(train), len(test), facts=facts, ligands=ligands, nearest=nearest)


def _tanimoto(rows: Sequence, columns: Sequence) -> np.ndarray:
    """Similarity of fingerprints, [rows, columns]; None is alike to nothing."""
    table = np.zeros((len(rows), len(columns)))
    there = [place for place, one in enumerate(columns) if one is not None]
    for place, one in enumerate(rows):
        if one is not None and there:
            table[place, there] = DataStructs.BulkTanimotoSimilarity(one, [columns[other] for other in there])
    return table


def _judged(
    dataset: Dataset,
    scorer: Scorer,
    test: Sequence[Example],
    told: np.ndarray,
    groups: Mapping[str, object],
    targets: Sequence[str],
    *,
    is_calibrated: bool,
) -> Judged:
    """
    Args:
        is_calibrated: the intervals were made from other complexes than those that are judged.
    """
    codes, is_joined = _codes(test), isinstance(scorer.model, JoinedModel)
    sources = tuple(dataset.entries[code].source for code in codes)
    return Judged(
        codes=tuple(codes),
        measured=measured_pk(test),
        predicted=told[:, 0],
        heavy_atoms=np.array([example.graph.num_ligand_atoms for example in test]),
        kinds=tuple(dataset.entries[code].kind for code in codes),
        smiles=tuple(example.graph.smiles for example in test),
        sources=tuple(source or "not stated" for source in sources) if any(sources) else (),
        targets=tuple(targets),
        clusters=tuple(groups[code] for code in codes) if groups else None,
        parts={"network": told[:, 1], "Gaussian process": told[:, 2]} if is_joined else {},
        likeness=told[:, JUDGED.index(FACTS[1])] if is_joined else None,
        half_widths=half_widths(told, scorer.calibration) if is_calibrated and scorer.calibration else None,
    )


def _run(scorer: Scorer, checkpoint: Path, state: Mapping[str, Any], command: str) -> Run:
    # The best checkpoint is that of an earlier epoch; the latest beside it has the whole history.
    latest, whole = checkpoint.with_name(LATEST), state
    if latest.is_file():
        try:
            whole = load_checkpoint(latest, required=RECORDED)
        except CheckpointError as error:  # only the history is lost; the model is whole
            log.warning("the history ends at the best epoch: %s", error)
    same = whole["dataset"] == state["dataset"] and whole["split"] == state["split"]
    return Run(
        checkpoint=checkpoint.name,
        settings=state["config"],
        versions=state["versions"] | {"data processing": state["data_version"]},
        history=(whole if same else state).get("progress", {}).get("history", []),
        num_weights=sum(parameter.numel() for parameter in scorer.model.parameters()),
        joined_with=_joined_with(scorer.model),
        synthetic=scorer.trained_on_synthetic_data,
        command=command,
    )


def _joined_with(model: ScoringModel) -> str:
    if not isinstance(model, JoinedModel):
        return ""
    return f"a Gaussian process of {len(model.process.weights):,} training complexes, its share {model.share:.2f}"


def _codes(examples: Sequence[Example]) -> list[str]:
    return [example.graph.code for example in examples]


def _numbers(dataset: Dataset, examples: Sequence[Example]) -> list[int]:
    """Their places in the data set, by which the similarity knows them."""
    number = {code: place for place, code in enumerate(_codes(dataset.examples))}
    return [number[code] for code in _codes(examples)]
