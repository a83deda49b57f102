"""From a checkpoint to the results folder: the same numbers each time, and nothing else than the run's own settings."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

import main as training_program
from src.checkpoint import load_checkpoint
from src.evaluation.metrics import rmse
from src.run import results
from src.run.results import RECORDED, settings_of_run
from src.system.storage import write_plain
from tests.complexes import small_settings, write_dataset
from tests.training_runs import CODES, ROOT, Run, finish, start

FILES = ("metrics.json", "test_predictions.csv", "skipped.csv", "splits.json", "model_card.md", "report.html")


@pytest.fixture
def run(finished: Run) -> Run:
    return finished


def metrics(run: Run) -> dict:
    return json.loads((run.results / "metrics.json").read_text())


def test_evaluate_writes_every_number_again(run: Run) -> None:
    before = {name: (run.results / name).read_text() for name in FILES}
    weights = (run.checkpoints / "model_best.pth.tar").read_bytes()
    shutil.rmtree(run.results)
    # A setting of the run that has changed since is not used: the checkpoint's own are.
    with_figures = Run(run.folder, draws_figures=True)
    assert with_figures.train("--evaluate", seed=7, interaction_cutoff=5.0, batch_size=3) == 0
    for name in ("metrics.json", "test_predictions.csv", "skipped.csv", "splits.json"):
        assert (run.results / name).read_text() == before[name], name
    assert (run.checkpoints / "model_best.pth.tar").read_bytes() == weights
    assert "best, epoch" in (run.results / "report.html").read_text()  # the history is in the checkpoint too


def test_what_the_files_hold(run: Run) -> None:
    with open(run.results / "test_predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["kind"] for row in rows} == {"Kd"}
    assert {row["heavy_atoms"] for row in rows} == {"4"}
    # Three residues are one protein, named after the first complex of the test set.
    assert {row["target"] for row in rows} == {f"as in {rows[0]['code']}"}
    split = json.loads((run.results / "splits.json").read_text())
    assert split["parts"] == load_checkpoint(run.checkpoints / "checkpoint.pth.tar")["split"]
    numbers = metrics(run)
    assert {"this model", "predict the mean", "contact count only", "ligand only", "nearest ligands"} <= set(numbers)
    assert "ligand size only" not in numbers  # every ligand has four atoms
    assert set(numbers["this model"]) == {"rmse", "mae", "pearson", "spearman", "kendall", "concordance"}
    page = (run.results / "report.html").read_text()
    assert page.count("<h3>") == 3
    assert ">Protein</th>" in page
    assert [group["complexes"] for group in numbers["by target"].values()] == [len(rows)]
    assert "model_best.pth.tar" in page


def test_another_table_is_compared_with(run: Run, capsys: pytest.CaptureFixture) -> None:
    other = run.folder / "other.csv"
    shutil.copy(run.results / "test_predictions.csv", other)
    assert run.train("--evaluate", "--compare", str(other)) == 0
    assert metrics(run)["compared with"]["complexes"] == 3
    assert metrics(run)["compared with"]["rmse"] == {"value": 0.0, "low": 0.0, "high": 0.0, "p": None}  # of so few
    assert "3 complexes in both" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--compare", "/does/not/exist.csv"], "exist.csv: cannot be read"), (["--casf", "/does/not/exist"], "exist: no")],
)
def test_what_cannot_be_used_is_one_message(
    run: Run, caplog: pytest.LogCaptureFixture, options: list[str], message: str
) -> None:
    before = (run.results / "metrics.json").read_bytes()
    assert run.train("--evaluate", *options) == 2
    assert message in caplog.text
    assert "Traceback" not in caplog.text
    assert (run.results / "metrics.json").read_bytes() == before


def test_a_damaged_ligand_of_casf_costs_its_complex(run: Run, capsys: pytest.CaptureFixture) -> None:
    root, codes = run.folder / "casf", CODES[:4]
    shutil.copytree(run.folder / "data", root / "coreset")
    lines = [f"{code} 2.00 2012 {5 + number}.00 Kd=1uM {number % 2}\n" for number, code in enumerate(codes)]
    (root / "CoreSet.dat").write_text("".join(lines))
    (root / "coreset" / codes[1] / f"{codes[1]}_ligand.sdf").write_text("<html>not found</html>")
    assert run.train("--evaluate", "--casf", str(root)) == 0
    assert "scoring power, 3 complexes" in capsys.readouterr().out
    with open(run.results / "skipped.csv", newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if row["stage"] == "scoring power"]
    assert row["code"] == codes[1]
    assert "is an HTML page" in row["reason"]


def test_a_table_of_other_complexes_is_refused_before_predicting(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def predict(*arguments: object, **options: object) -> None:
        raise AssertionError("predicted for nothing")

    monkeypatch.setattr("src.run.results.predict_batches", predict)
    (run.folder / "other.csv").write_text("code,pK\n9zzz,5.0\n")
    assert run.train("--evaluate", "--compare", str(run.folder / "other.csv")) == 2
    assert "has none of the complexes to judge. Its codes with a prediction are 9zzz (1)" in caplog.text


def test_compare_without_evaluate_is_refused(run: Run, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        run.train("--compare", "other.csv")
    assert stop.value.code == 2
    assert "need --evaluate" in capsys.readouterr().err


def test_evaluate_without_a_checkpoint_is_one_message(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(run.checkpoints)
    assert run.train("--evaluate") == 2
    assert "model_best.pth.tar" in caplog.text


def test_other_data_are_named(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    split = load_checkpoint(run.checkpoints / "checkpoint.pth.tar")["split"]
    gone, *_ = split["test"]
    shutil.rmtree(run.folder / "data" / gone)
    with caplog.at_level(logging.WARNING):
        assert run.train("--evaluate") == 0
    assert f"1 complexes of the test set are not in the data: {gone}" in caplog.text
    assert "not those of the training" in caplog.text
    assert metrics(run)["complexes"] == 2


def test_a_complex_that_does_not_fit_is_left_out_of_every_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = training_program.evaluate_checkpoint.__globals__["predict_batches"]

    def predict(*arguments: object, left_out: list[int], **options: object) -> tuple:
        predicted, measured = real(*arguments, **options)
        left_out.append(1)
        return predicted, measured

    monkeypatch.setattr("src.run.results.predict_batches", predict)
    before = (run.results / "test_predictions.csv").read_text().splitlines()
    assert run.train("--evaluate") == 0
    assert (run.results / "test_predictions.csv").read_text().splitlines() == [*before[:2], before[3]]
    assert metrics(run)["left_out"] == [before[2].split(",")[0]]
    assert "do not fit into memory" in (run.results / "report.html").read_text()


def test_the_settings_of_a_run_are_the_checkpoints_but_for_folders(tmp_path: Path) -> None:
    then = small_settings(tmp_path / "then", learning_rate=0.01, batch_size=7)
    now = small_settings(tmp_path / "now", epochs=99)
    settings = settings_of_run(now, {"config": then.config}, tmp_path)
    assert (settings.training.learning_rate, settings.training.batch_size) == (0.01, 7)
    assert settings.output == now.output
    assert settings.data.dataset_path == now.data.dataset_path


def test_a_data_set_that_is_not_set_now_is_that_of_the_training(tmp_path: Path) -> None:
    then = small_settings(tmp_path / "then", index_file=str(tmp_path / "index.lst"))
    unset = small_settings(tmp_path / "now", dataset_path=None)
    data = settings_of_run(unset, {"config": then.config}, tmp_path).data
    assert (data.dataset_path, data.index_file) == (then.data.dataset_path, then.data.index_file)
    # An index belongs to its data set: another set is not read with it.
    other = settings_of_run(small_settings(tmp_path / "now"), {"config": then.config}, tmp_path)
    assert other.data.index_file is None


def test_evaluate_finds_the_data_of_the_training(run: Run) -> None:
    before = (run.results / "metrics.json").read_text()
    data = load_checkpoint(run.checkpoints / "model_best.pth.tar")["config"]["dataset_path"]
    assert Path(data).is_dir()
    shutil.rmtree(run.folder / "data")
    assert run.train("--evaluate", dataset_path=None) == 0
    assert (run.results / "metrics.json").read_text() == before


def test_a_data_set_without_the_codes_of_the_split_is_one_message(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(run.folder / "data")
    write_dataset(run.folder / "data", [f"9z{number:02}" for number in range(6)])
    assert run.train("--evaluate") == 2
    assert f"none of the training codes of the split is in {run.folder / 'data'}" in caplog.text
    assert "Traceback" not in caplog.text


def test_the_nearest_training_complex_is_a_baseline(run: Run) -> None:
    # All proteins and ligands are the same, so the first training complex is as near as any.
    first = min(load_checkpoint(run.checkpoints / "model_best.pth.tar")["split"]["train"])
    with open(run.results / "test_predictions.csv", newline="") as file:
        measured = np.array([float(row["measured_pK"]) for row in csv.DictReader(file)])
    expected = rmse(np.full(len(measured), 9 - np.log10(1 + CODES.index(first))), measured)
    assert metrics(run)["nearest training complex"]["rmse"]["value"] == pytest.approx(expected, abs=1e-3)


def test_similar_ligands_are_thinned_before_they_are_compared(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.evaluation.baselines.MAX_RIDGE_LIGANDS", 4)
    real, shapes = results._tanimoto, []

    def compared(rows: list, columns: list) -> np.ndarray:
        shapes.append((len(rows), len(columns)))
        return real(rows, columns)

    monkeypatch.setattr("src.run.results._tanimoto", compared)
    assert run.train("--evaluate") == 0
    assert shapes == [(4, 4), (3, 10)]


@pytest.mark.parametrize(("method", "drawn"), [("random", "complexes"), ("scaffold", "one cluster has no interval")])
def test_what_is_resampled_follows_the_split(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, method: str, drawn: str
) -> None:
    """The groups come from the method of the split, not from its lists; this set has one scaffold."""
    real = results.group_of_code
    monkeypatch.setattr(
        "src.run.results.group_of_code",
        lambda dataset, data, same: real(dataset, dataclasses.replace(data, split=method), same),
    )
    assert run.train("--evaluate") == 0
    assert drawn in capsys.readouterr().out
    assert drawn in metrics(run)["resampled"]
    for page in ("report.html", "model_card.md"):
        assert drawn in (run.results / page).read_text()


def test_a_checkpoint_for_prediction_alone_is_enough(run: Run) -> None:
    best = run.checkpoints / "model_best.pth.tar"
    state = load_checkpoint(best)
    assert set(state) >= RECORDED
    write_plain(best, {key: state[key] for key in RECORDED | {"ema"}})
    (run.checkpoints / "checkpoint.pth.tar").unlink()
    assert run.train("--evaluate") == 0
    assert "No history" in (run.results / "report.html").read_text()


def test_everything_but_the_figures_comes_without_matplotlib(run: Run) -> None:
    (run.folder / "matplotlib.py").write_text("raise ImportError('not here')\n")
    script = run.folder / "without.py"
    script.write_text(
        "import importlib.util as util, runpy, sys\n"
        "real = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name.startswith('matplotlib') else real(name, *rest)\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        f"sys.path.insert(0, {str(run.folder)!r})\n"
        f"sys.argv[0] = {str(ROOT / 'main.py')!r}\n"
        f"runpy.run_path({str(ROOT / 'main.py')!r}, run_name='__main__')\n"
    )
    shutil.rmtree(run.results)
    code, out, err = finish(start(str(script), run.options("--evaluate")))
    assert code == 0, err
    assert "this model" in out
    assert err.count("pip install matplotlib") == 1
    assert all((run.results / name).is_file() for name in FILES)
