"""End to end: main.py trains, stops, goes on and reports; predict.py scores with what main.py left."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

import main as training_program
import predict as scoring_program
from src.checkpoint import load_checkpoint
from src.message_passing import EAGER, Kernels
from tests.complexes import sdf_text, write_dataset
from tests.runs import CODES, ROOT, Run, finish, printed_command, score_options, start

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    write_dataset(tmp_path / "data", CODES)
    return Run(tmp_path)


# A whole run in processes of its own


def test_the_main_road(tmp_path: Path) -> None:
    """Another working directory, and paths with a space and letters beyond ASCII."""
    run = Run(tmp_path / "data of Zoë")
    write_dataset(run.folder / "data", CODES)
    code, out, err = finish(start("main.py", run.options(), cwd=tmp_path))
    assert code == 0, err
    for trace in ("%|", "batch/s", "complex/s"):
        assert trace not in out + err  # of a progress bar, where nobody watches
    assert "epoch" not in out  # standard output carries results alone
    assert "this model" in out
    assert "predict the mean" in out
    assert "test set, 3 complexes" in out
    assert sorted(path.name for path in run.results.iterdir()) == [
        "history.csv",
        "history.jsonl",
        "metrics.json",
        "run.json",
        "test_predictions.csv",
    ]
    code, out, err = finish(start("predict.py", printed_command(out), cwd=tmp_path))
    assert code == 0, err
    assert re.search(r"^\S+: pK -?\d+\.\d\d .*Kd about .* kcal/mol at 298\.15 K$", out, re.MULTILINE)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("uninterrupted"))
    write_dataset(run.folder / "data", CODES)
    assert run.train(epochs=LONG) == 0
    return run


LONG = 25  # epochs; enough to be caught in the middle


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_goes_on_and_ends_with_the_same_weights(
    run: Run, uninterrupted: Run, number: int, code: int
) -> None:
    process = start("main.py", run.options(epochs=LONG))
    for line in process.stderr:
        if line.startswith("epoch   2/"):
            os.killpg(process.pid, number)
            break
    stopped, out, err = finish(process)
    assert stopped == code
    assert (out, "Traceback" in err) == ("", False)
    assert (run.checkpoints / "INTERRUPTED.pth.tar").exists()
    assert "Go on with: python" in err
    assert run.train(epochs=LONG) == 0
    assert run.history() == uninterrupted.history()
    for name, value in uninterrupted.weights().items():
        assert torch.equal(run.weights()[name], value), name


# The same in this process


def test_what_a_run_leaves(run: Run, capsys: pytest.CaptureFixture) -> None:
    assert run.train() == 0
    printed = capsys.readouterr().out
    assert [row["epoch"] for row in run.history()] == [1, 2]
    numbers = json.loads((run.results / "metrics.json").read_text())
    assert (numbers["part"], numbers["complexes"]) == ("test", 3)
    assert {"this model", "predict the mean", "ligand only"} <= numbers.keys()
    assert set(numbers["this model"]["rmse"]) == {"value", "low", "high"}
    with open(run.results / "test_predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    split = load_checkpoint(run.checkpoints / "checkpoint.pth.tar")["split"]
    assert [row["code"] for row in rows] == split["test"]
    errors = [float(row["predicted_pK"]) - float(row["measured_pK"]) for row in rows]
    rmse = (sum(error**2 for error in errors) / 3) ** 0.5
    assert numbers["this model"]["rmse"]["value"] == pytest.approx(rmse, abs=1e-3)
    facts = json.loads((run.results / "run.json").read_text())
    assert facts["config"]["epochs"] == 2
    assert facts["dataset"]["synthetic"] is False
    assert set(printed_command(printed)[1::2]) >= {str(run.checkpoints / "model_best.pth.tar")}


def test_predicting_gives_the_number_of_the_evaluation(run: Run, capsys: pytest.CaptureFixture) -> None:
    run.train()
    capsys.readouterr()
    with open(run.results / "test_predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert scoring_program.main([*score_options(run, row["code"]), "--output", str(run.folder / "s.json")]) == 0
        (scored,) = json.loads((run.folder / "s.json").read_text())
        assert scored["pK"] == pytest.approx(float(row["predicted_pK"]), abs=1e-3)
        assert f"pK {scored['pK']:.2f}" in capsys.readouterr().out


def test_a_finished_run_says_so_and_trains_no_more(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    run.train()
    history, weights = run.history(), run.weights()
    with caplog.at_level(logging.INFO):
        assert run.train() == 0
    assert "this run is finished after 2 epochs" in caplog.text
    assert "epoch   3" not in caplog.text
    assert run.history() == history
    assert all(torch.equal(value, run.weights()[name]) for name, value in weights.items())


def test_more_epochs_go_on_where_it_stopped(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    run.train()
    with caplog.at_level(logging.INFO):
        assert run.train(epochs=3) == 0
    assert "going on from" in caplog.text
    assert "epochs: 2 -> 3" in caplog.text
    assert [row["epoch"] for row in run.history()] == [1, 2, 3]


def test_fresh_starts_over_and_keeps_the_old_files(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    run.train()
    old = sorted(path.read_bytes() for path in run.checkpoints.glob("*.pth.tar"))
    with caplog.at_level(logging.INFO):
        assert run.train("--fresh", learning_rate=0.01) == 0
    assert "earlier checkpoints are now in" in caplog.text
    assert sorted(path.read_bytes() for path in run.checkpoints.glob("before-*/*.pth.tar")) == old
    assert [row["epoch"] for row in run.history()] == [1, 2]


def test_the_command_to_go_on_does_not_start_over(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    options = run.options("--fresh")
    monkeypatch.setattr(sys, "argv", ["main.py", *options])
    monkeypatch.setattr(training_program.Trainer, "fit", lambda *_: signal.SIGINT)
    with caplog.at_level(logging.INFO):
        assert training_program.main(options) == 130
    assert "Go on with: python main.py" in caplog.text
    assert "--fresh" not in caplog.text


def test_the_printed_command_works_from_any_folder(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(run.folder)
    run.train()
    script = re.search(r"python (\S*predict\.py)", capsys.readouterr().out)[1]
    assert Path(script).resolve() == ROOT / "predict.py"


@pytest.mark.parametrize("change", [{"learning_rate": 0.01}, {"seed": 7}, {"visnet_hidden_channels": 32}])
def test_another_run_in_the_same_folder_is_refused(
    run: Run, caplog: pytest.LogCaptureFixture, change: dict[str, float]
) -> None:
    run.train()
    before = {path: path.read_bytes() for path in run.checkpoints.iterdir()}
    assert run.train(**change) == 2
    ((key, value),) = change.items()
    assert re.search(rf"{key}: \S+ -> {value}", caplog.text)
    assert "--fresh" in caplog.text
    assert {path: path.read_bytes() for path in run.checkpoints.iterdir()} == before


def test_another_label_is_another_run(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    run.train()
    index = run.folder / "data" / "index" / "INDEX_test.2020R1.lst"
    index.write_text(index.read_text().replace("Kd=3nM", "Kd=4nM"))
    assert run.train() == 2
    assert "codes, labels or their split" in caplog.text


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    run.train(epochs=3)
    weights = run.weights()
    path = run.checkpoints / "checkpoint.pth.tar"
    path.write_bytes(path.read_bytes()[:-5000])
    with caplog.at_level(logging.INFO):
        assert run.train(epochs=3) == 0
    assert "checkpoints not used:" in caplog.text
    assert "checkpoint.pth.tar: cannot be read" in caplog.text
    assert all(torch.equal(value, run.weights()[name]) for name, value in weights.items())


def test_check_data_prints_the_audit_and_trains_nothing(run: Run, capsys: pytest.CaptureFixture) -> None:
    shutil.rmtree(run.folder / "data" / "1a03")
    assert run.train("--check-data") == 0
    out = capsys.readouterr().out
    assert re.search(r"lines in the index +16\n", out)
    assert re.search(r"files missing +1\n", out)
    assert re.search(r"graphs +15 ", out)
    assert "1a03 (files): no folder of this name" in out
    assert not list(run.checkpoints.glob("*.pth.tar"))
    assert not run.results.exists()


def test_check_data_with_nothing_usable_is_no_success(run: Run) -> None:
    for ligand in (run.folder / "data").glob("*/*.sdf"):
        ligand.write_text("garbage")
    assert run.train("--check-data") == 2


def test_the_audit_fits_a_terminal_that_knows_only_ascii(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (run.folder / "data" / "1a00" / "1a00_ligand.sdf").write_text(sdf_text(shift=(500.0, 0.0, 0.0)))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert run.train("--check-data") == 0
    sys.stdout.flush()
    assert b"no protein atom within 6" in written.getvalue()


def test_graphs_of_other_settings_are_named_with_the_command_that_deletes_them(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    run.train("--check-data")
    (old,) = (run.folder / "processed").iterdir()
    run.train("--check-data", visnet_cutoff=4.0)
    assert f"delete with: {shlex.join(['rm', '-r', str(old)])}" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learing_rate": 1e-3}, "did you mean 'learning_rate'?"),
        ({"epochs": 0}, "epochs = 0 must be a whole number"),
        ({"train_split": 1.2}, "train_split = 1.2"),
        ({"dataset_path": "/does/not/exist"}, "/does/not/exist"),
        ({"device": "cuda:77"}, "cuda:77"),
        ({"train_split": 0.05}, "16 usable complexes give 1 to train"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_fault_of_the_user_is_one_message_and_exit_code_2(
    run: Run, caplog: pytest.LogCaptureFixture, change: dict[str, object], message: str
) -> None:
    assert run.train(**change) == 2
    assert message in caplog.text
    assert "Traceback" not in caplog.text
    assert not any(run.checkpoints.glob("*.pth.tar"))


def test_labels_that_are_all_the_same_have_no_correlation(run: Run, capsys: pytest.CaptureFixture) -> None:
    index = run.folder / "data" / "index" / "INDEX_test.2020R1.lst"
    index.write_text(re.sub(r"Kd=\d+nM", "Kd=1nM", index.read_text()))
    assert run.train() == 0
    assert re.search(r"this model .* n/a +n/a", capsys.readouterr().out)


def test_a_validation_set_of_bounds_alone_is_refused(run: Run) -> None:
    index = run.folder / "data" / "index" / "INDEX_test.2020R1.lst"
    run.train()
    held_out = load_checkpoint(run.checkpoints / "checkpoint.pth.tar")["split"]["validation"]
    lines = [line.replace("Kd=", "Kd<") if line[:4] in held_out else line for line in index.read_text().splitlines()]
    index.write_text("\n".join([*lines, ""]))
    shutil.rmtree(run.checkpoints)
    assert run.train(censored_labels="bound") == 2
    assert not list(run.checkpoints.glob("*.pth.tar"))


def test_a_path_that_is_relative_starts_from_the_folder_of_config(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_program, "ROOT", run.folder)
    assert run.train("--check-data", dataset_path="data/") == 0


def test_nan_everywhere_stops_with_exit_code_1(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forward = training_program.build_model.__globals__["AffinityModel"].forward
    monkeypatch.setattr("src.model.AffinityModel.forward", lambda model, batch: forward(model, batch) * torch.nan)
    assert run.train() == 1
    assert "training stopped: " in caplog.text
    assert not any(run.checkpoints.glob("*.pth.tar"))


def test_plan_prints_what_fits_and_trains_nothing(run: Run, capsys: pytest.CaptureFixture) -> None:
    assert run.train("--plan") == 0
    out = capsys.readouterr().out
    assert re.search(r"^complexes +16$", out, re.MULTILINE)
    assert re.search(r"^batch_size 256 +\d+\.\d\d GB", out, re.MULTILINE)
    assert re.search(r"^6 GB GPU +5\.08 GB +[\d,]+ +[\d,]+$", out, re.MULTILINE)
    assert re.search(r'"batch_size": \d+,\n +"gradient_accumulation_steps": \d+,\n +"message_passing": "\w+",', out)
    assert not run.checkpoints.exists()
    assert not run.results.exists()


def test_a_run_with_auto_keeps_its_numbers_when_it_goes_on(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("src.memory_plan.usable_memory", lambda _: 1e12)
    assert run.train(batch_size="auto") == 0
    facts = json.loads((run.results / "run.json").read_text())
    keys = ("batch_size", "gradient_accumulation_steps", "message_passing")
    assert [facts["config"][key] for key in keys] == [16, 1, "fast"]
    monkeypatch.setattr("src.memory_plan.usable_memory", lambda _: 1.0)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert run.train(batch_size="auto", epochs=3) == 0
    assert "going on from" in caplog.text
    assert "measuring the memory" not in caplog.text
    state = load_checkpoint(run.checkpoints / "checkpoint.pth.tar")
    assert [state["config"][key] for key in keys] == [16, 1, "fast"]
    # The numbers written out are the same run.
    assert run.train(batch_size=16, epochs=4) == 0
    assert [row["epoch"] for row in run.history()] == [1, 2, 3, 4]


def test_a_run_that_goes_on_keeps_its_kernels(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []

    def fastest(*_: object, num_steps: int | None, **__: object) -> Kernels:
        asked.append(num_steps)
        return Kernels(*EAGER)  # stands for compiled ones

    def kernels() -> str:
        return load_checkpoint(run.checkpoints / "checkpoint.pth.tar")["kernels"]

    monkeypatch.setattr(training_program, "fastest_kernels", fastest)
    assert run.train(epochs=1, batch_size=1) == 0
    num_train = len(json.loads((run.results / "run.json").read_text())["split"]["train"])
    assert asked == [num_train]
    assert kernels() == "compiled"
    assert run.train(epochs=2, batch_size=1) == 0
    assert asked == [num_train, None]
    assert run.train("--fresh", epochs=1, batch_size=1, message_passing="fast") == 0
    assert kernels() == "plain"
    assert run.train(epochs=2, batch_size=1, message_passing="auto") == 0
    assert len(asked) == 2
