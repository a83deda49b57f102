"""After a training its network is joined with a Gaussian process, once, in the file that predictions come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from src.checkpoint import BEST, load_checkpoint, save_checkpoint
from src.data.batching import in_order
from src.data.dataset import load_dataset
from src.evaluation.calibration import FACTS, calibrate_by_facts, read_calibration
from src.gaussian_process.joined_model import JoinedModel, Judge
from src.gaussian_process.series import read_series_prior
from src.hardware.inference import predict_batches
from src.run import joining
from src.scoring.ensemble import load_scorer
from tests.complexes import small_settings, write_dataset
from tests.training_runs import CODES, Run, fingerprints


@pytest.fixture
def run(tmp_path: Path) -> Run:
    write_dataset(tmp_path / "data", CODES)
    return Run(tmp_path)


def test_a_training_ends_with_a_joined_model(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.train() == 0
    shown = capsys.readouterr().out
    assert "its network alone" in shown
    assert "its Gaussian process alone" in shown
    for name in ("model_card.md", "report.html"):
        assert "joined with a Gaussian process of 10 training complexes" in (run.results / name).read_text()
    state = load_checkpoint(run.checkpoints / BEST)
    model = load_scorer(run.checkpoints / BEST, "cpu").model
    assert isinstance(model, JoinedModel)
    assert len(model.process.weights) == len(state["split"]["train"])
    assert read_series_prior(state["process"]["series"]) == model.prior
    assert "process" not in load_checkpoint(run.checkpoints / "checkpoint.pth.tar")  # that of the training alone


def test_the_interval_is_that_of_the_joined_model(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    monkeypatch.setattr(joining, "calibrate_by_facts", lambda *of: used.append(of) or calibrate_by_facts(*of))
    assert run.train() == 0
    path = run.checkpoints / BEST
    state, settings = load_checkpoint(path), small_settings(run.folder)
    dataset = load_dataset(settings.data, settings.graph, settings.processing)
    validation = dataset.judged(state["split"]["validation"])
    told, measured = predict_batches(Judge(load_scorer(path).model), in_order(validation, 4), torch.device("cpu"))
    (facts, errors, validation_facts, validation_errors), calibration = used[0], read_calibration(state)
    num_train = len(state["split"]["train"])
    assert facts.shape == (len(errors), len(FACTS))
    assert len(errors) in (num_train, 2 * num_train)  # without each, and without the cluster of each if there are some
    assert validation_facts == pytest.approx(told[:, -len(FACTS) :], abs=1e-5)
    ends = np.sort(told[:, 1:3], axis=1) - measured[:, None]  # any share lies between network and process
    assert (ends[:, 0] - 1e-4 <= validation_errors).all()
    assert (validation_errors <= ends[:, 1] + 1e-4).all()
    assert calibration == calibrate_by_facts(facts, errors, validation_facts, validation_errors)[0]


def test_the_training_is_the_same_with_and_without(run: Run) -> None:
    assert run.train() == 0
    assert run.train(gaussian_process=False, checkpoint_dir=str(run.folder / "other")) == 0
    joined, alone = (load_checkpoint(folder / BEST) for folder in (run.checkpoints, run.folder / "other"))
    assert alone.get("process") is None
    for name, weights in joined["model"].items():
        assert torch.equal(weights, alone["model"][name]), name


def test_a_finished_run_of_an_earlier_version_is_joined_by_the_same_command(run: Run) -> None:
    assert run.train(gaussian_process=False) == 0
    path = run.checkpoints / BEST
    assert load_checkpoint(path).get("process") is None
    assert run.train() == 0
    assert load_checkpoint(path)["process"] is not None


def test_what_is_joined_stays_as_it_is(run: Run) -> None:
    assert run.train() == 0
    path = run.checkpoints / BEST
    state = load_checkpoint(path)
    state["process"]["share"] = 0.25  # as one would not be found again
    save_checkpoint(path, state)
    before = path.read_bytes()
    assert run.train() == 0
    assert path.read_bytes() == before


def test_a_run_that_was_stopped_before_it_was_joined_ends_alike(run: Run, tmp_path: Path) -> None:
    assert run.train() == 0
    expected = fingerprints(run)
    path = run.checkpoints / BEST
    state = load_checkpoint(path)
    del state["process"]
    save_checkpoint(path, state)
    assert run.train() == 0
    assert fingerprints(run) == expected
    assert load_checkpoint(path)["process"] is not None
