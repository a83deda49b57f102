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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

import main as training_program
import predict as scoring_program
import src.data.cache as cache_module
from src.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from src.run import trainer_setup as preparation
from src.settings import ModelSettings, settings_from_dict
from src.system.locks import sole_use
from src.system.workers import WorkerFault
from src.visnet.chunked_kernels import EAGER, ChunkedKernels
from src.visnet.kernels import Kernels
from tests.complexes import sdf_text, write_complex, write_dataset
from tests.training_runs import CODES, ROOT, Run, fingerprints, finish, printed_command, score_options, start

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    write_dataset(tmp_path / "data", CODES)
    return Run(tmp_path)


# A whole run in processes of its own


NARROW = {"TERM": "dumb", "COLUMNS": "40"}


@pytest.mark.fault("M3", "M5")
def test_the_main_road(tmp_path: Path) -> None:
    """Another working directory, paths with a space and letters beyond ASCII, and no terminal worth the name."""
    run = Run(tmp_path / "data of Zoë")
    write_dataset(run.folder / "data", CODES)
    code, out, err = finish(start("main.py", run.options(), cwd=tmp_path, **NARROW))
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
        "model_card.md",
        "report.html",
        "run.json",
        "skipped.csv",
        "splits.json",
        "test_predictions.csv",
    ]
    code, out, err = finish(start("predict.py", printed_command(out), cwd=tmp_path, **NARROW))
    assert code == 0, err
    assert re.search(r"^\S+: pK -?\d+\.\d\d.*, Kd .*, ΔG -?\d+\.\d", out, re.MULTILINE)


def test_rows_that_count_less_change_the_weights_and_sources_are_shown(run: Run) -> None:
    table = run.folder / "data" / "labels.csv"
    folder = "{0}/{0}_pocket.pdb,{0}/{0}_ligand.sdf"
    rows = [f"{code},{folder.format(code)},{6 + place / 8}" for place, code in enumerate(CODES)]

    def train(weight: str) -> dict[str, torch.Tensor]:
        more = [f",{weight},{('crystal', 'posed')[place % 2]}" for place in range(len(rows))]
        lines = [row + end for row, end in zip(rows, more, strict=True)]
        table.write_text("\n".join(["code,pocket_path,ligand_path,pK,weight,source", *lines]) + "\n")
        assert run.train("--fresh", index_file=table, epochs=1) == 0
        return run.weights()

    whole, unsaid, less = train("1"), train(""), train("0.1")
    assert all(torch.equal(whole[name], unsaid[name]) for name in whole)
    assert any(not torch.equal(whole[name], less[name]) for name in whole)
    with (run.results / "test_predictions.csv").open(newline="", encoding="utf-8") as file:
        assert {row["source"] for row in csv.DictReader(file)} <= {"posed", "crystal"}
    assert json.loads((run.results / "metrics.json").read_text())["by source"]


def out_of_fold(run: Run) -> list[dict[str, str]]:
    with (run.results / "test_predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


ENSEMBLE = {"members": 2, "split_folds": 2, "split_fold": "all", "epochs": 2}
ENSEMBLE_NAMES = [f"fold_{fold}_seed_{seed}" for fold in (0, 1) for seed in (42, 43)]


def test_members_and_folds_in_one_command_and_what_they_find_together(run: Run, capsys) -> None:
    assert run.train(**ENSEMBLE) == 0
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ENSEMBLE_NAMES
    rows = out_of_fold(run)
    assert [row["code"] for row in rows] == CODES
    assert all(float(row["spread_pK"]) > 0 for row in rows)
    shown = capsys.readouterr().out
    assert shown.count("\n4 runs together, the mean of those that share a test set:\n\ntest set, ") == 1
    _, out, err = finish(start("predict.py", printed_command(shown.rpartition("results are in")[2])))
    assert "SD of 4 models" in out, err


@posix
@pytest.mark.slow
def test_members_that_are_killed_end_with_the_same_bits(run: Run, tmp_path: Path) -> None:
    assert run.train(**ENSEMBLE) == 0
    stopped = Run(tmp_path / "stopped")
    shutil.copytree(run.folder / "data", stopped.folder / "data")
    for epoch in (1, 2):  # inside the first member, and inside the third: two before it are whole
        process = start("main.py", stopped.options(**ENSEMBLE))
        seen = 0
        for line in process.stderr:
            seen += f"epoch   {epoch}/2" in line
            if seen == (1, 3)[epoch - 1]:
                process.send_signal(signal.SIGKILL)
                break
        assert finish(process)[0] == -signal.SIGKILL
    assert stopped.train(**ENSEMBLE) == 0
    assert out_of_fold(stopped) == out_of_fold(run)
    for name in ENSEMBLE_NAMES:
        mine, theirs = (load_checkpoint(one.checkpoints / name / "checkpoint.pth.tar") for one in (stopped, run))
        assert all(torch.equal(mine["model"][key], theirs["model"][key]) for key in theirs["model"])


@pytest.mark.slow
@pytest.mark.fault("M6")
def test_a_locale_without_letters_beyond_ascii(tmp_path: Path) -> None:
    run = Run(tmp_path / "data of Zoë")
    write_dataset(run.folder / "data", CODES)
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
    code, out, err = finish(start("main.py", run.options(epochs=1), cwd=tmp_path, **locale))
    assert code == 0, err
    assert "this model" in out
    facts = json.loads((run.results / "run.json").read_text(encoding="utf-8"))
    assert facts["config"]["results_dir"] == str(run.results)  # the same bytes, whatever the locale makes of them
    code, _, err = finish(start("main.py", run.options(epochs=2), cwd=tmp_path, **locale))
    assert code == 0, err
    assert "going on from" in err


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("uninterrupted"))
    write_dataset(run.folder / "data", CODES)
    assert run.train(epochs=LONG) == 0
    return run


LONG = 12  # epochs; enough to be caught in the middle


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


def test_predicting_gives_the_number_of_the_evaluation(finished: Run, capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    with open(finished.results / "test_predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    table = ["--output", str(finished.folder / "s.json"), "--overwrite"]
    for row in rows:
        assert scoring_program.main([*score_options(finished, row["code"]), *table]) == 0
        (scored,) = json.loads((finished.folder / "s.json").read_text())
        assert scored["pK"] == pytest.approx(float(row["predicted_pK"]), abs=1e-3)
        (shown,) = re.findall(r"^\S+: pK ([\d.]+) ", capsys.readouterr().out, re.MULTILINE)
        assert float(shown) == pytest.approx(scored["pK"], abs=0.0056)  # rounded to 2 and to 3 decimals


def test_a_finished_run_says_so_and_trains_no_more(finished: Run, caplog: pytest.LogCaptureFixture) -> None:
    history, weights = finished.history(), finished.weights()
    with caplog.at_level(logging.INFO):
        assert finished.train() == 0
    assert "this run is finished after 2 epochs" in caplog.text
    assert "epoch   3" not in caplog.text
    assert finished.history() == history
    assert all(torch.equal(value, finished.weights()[name]) for name, value in weights.items())


def test_more_epochs_go_on_where_it_stopped(finished: Run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert finished.train(epochs=3) == 0
    assert "going on from" in caplog.text
    assert "epochs: 2 -> 3" in caplog.text
    assert [row["epoch"] for row in finished.history()] == [1, 2, 3]


def test_two_fresh_runs_leave_equal_files(run: Run) -> None:
    """But for seconds, and for what names its folder."""
    left = []
    for _ in range(2):
        assert run.train("--fresh", epochs=1) == 0
        left.append(fingerprints(run))
    assert left[0] == left[1]


def test_fresh_starts_over_and_keeps_the_old_files(finished: Run, caplog: pytest.LogCaptureFixture) -> None:
    old = sorted(path.read_bytes() for path in finished.checkpoints.glob("*.pth.tar"))
    with caplog.at_level(logging.INFO):
        assert finished.train("--fresh", learning_rate=0.01) == 0
    assert "earlier checkpoints are now in" in caplog.text
    assert sorted(path.read_bytes() for path in finished.checkpoints.glob("before-*/*.pth.tar")) == old
    assert [row["epoch"] for row in finished.history()] == [1, 2]


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo set is made of the complexes of these tests."""

    def write(folder: Path) -> Path:
        index = folder / "index" / "INDEX_test.2020R1.lst"
        return index if index.exists() else write_dataset(folder, CODES[2:])

    monkeypatch.setattr(training_program, "write_demo", write)


@pytest.mark.fault("B9")
def test_from_the_demo_set_to_data_of_ones_own(run: Run, small_demo: None, caplog: pytest.LogCaptureFixture) -> None:
    assert run.train(dataset_path=None, epochs=1) == 0
    old = sorted(path.read_bytes() for path in run.checkpoints.glob("*.pth.tar"))
    with caplog.at_level(logging.INFO):
        assert run.train(epochs=2, learning_rate=0.01) == 0
    assert "the earlier run was on the demo set: a new one begins" in caplog.text
    assert sorted(path.read_bytes() for path in run.checkpoints.glob("before-*/*.pth.tar")) == old
    assert len(list(run.results.glob("before-*/history.csv"))) == 1
    assert newest_checkpoint(run.checkpoints)[1]["dataset"]["synthetic"] is False
    assert [row["epoch"] for row in run.history()] == [1, 2]


@pytest.mark.fault("B9")
def test_a_run_on_ones_own_data_is_never_moved_away_for_the_demo_set(
    run: Run, small_demo: None, caplog: pytest.LogCaptureFixture
) -> None:
    assert run.train(epochs=1) == 0
    before = {path: path.read_bytes() for path in run.checkpoints.iterdir()}
    assert run.train(dataset_path=None, epochs=1) == 2
    assert "belongs to another run" in caplog.text
    assert {path: path.read_bytes() for path in run.checkpoints.iterdir()} == before


def test_the_demo_set_is_the_same_by_its_path(run: Run, small_demo: None) -> None:
    assert run.train(dataset_path=None, epochs=1) == 0
    assert run.train(dataset_path=run.folder / "processed" / "demo_set", epochs=2) == 0
    assert [row["epoch"] for row in run.history()] == [1, 2]


def test_the_command_to_go_on_does_not_start_over(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    options = run.options("--fresh")
    monkeypatch.setattr(sys, "argv", ["main.py", *options])
    monkeypatch.setattr(preparation.Trainer, "fit", lambda *_: signal.SIGINT)
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


@pytest.mark.fault("B8", "B9")
@pytest.mark.fault("C11")
@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0.01},
        {"seed": 7},
        {"visnet_hidden_channels": 32},
        {"batch_size": 2},
        {"gradient_accumulation_steps": 2},
    ],
)
def test_another_run_in_the_same_folder_is_refused(
    finished: Run, caplog: pytest.LogCaptureFixture, change: dict[str, float]
) -> None:
    before = {path: path.read_bytes() for path in finished.checkpoints.iterdir()}
    assert finished.train(**change) == 2
    ((key, value),) = change.items()
    assert re.search(rf"{key}: \S+ -> {value}", caplog.text)
    assert "--fresh" in caplog.text
    assert {path: path.read_bytes() for path in finished.checkpoints.iterdir()} == before


@pytest.mark.fault("B8", "B9")
@pytest.mark.parametrize("change", [{"learning_rate": 0.01}, {"batch_size": 2}, {"visnet_num_layers": 2}])
def test_settings_of_another_run_are_refused_before_the_data_are_read(
    finished: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, change: dict[str, float]
) -> None:
    monkeypatch.setattr(training_program, "load_dataset", lambda *_: pytest.fail("the data were read"))
    assert finished.train(**change) == 2
    assert "belongs to another run" in caplog.text


def test_ctrl_c_after_fresh_does_not_bring_the_old_run_back(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that is printed leaves --fresh out, so the old checkpoints have to be out of its way by then."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_program, "load_dataset", interrupted)
        assert finished.train("--fresh", seed=7) == 130
    assert finished.train(seed=7) == 0
    assert [row["epoch"] for row in finished.history()] == [1, 2]


@pytest.mark.fault("A12")
@pytest.mark.parametrize("setting", ["checkpoint_dir", "results_dir"])
def test_a_second_run_in_the_same_folder_is_refused_before_any_work(
    run: Run, caplog: pytest.LogCaptureFixture, setting: str
) -> None:
    folder = run.folder / "in use"
    folder.mkdir()
    with sole_use({setting: folder}):
        assert run.train(**{setting: folder}) == 2
        assert f"error: {setting}: {folder} is in use by process {os.getpid()} on " in caplog.text
        assert "--set checkpoint_dir=... --set results_dir=..." in caplog.text
        assert not list((run.folder / "processed").iterdir())
        assert run.train("--check-data", **{setting: folder}) == 0  # reads and builds, and writes nothing there
    assert run.train(**{setting: folder}) == 0


@pytest.mark.fault("B2")
@pytest.mark.parametrize("setting", ["checkpoint_dir", "results_dir", "processed_data_dir"])
def test_a_folder_that_cannot_be_written_to_is_found_before_any_work(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, setting: str
) -> None:
    monkeypatch.setattr(training_program, "load_dataset", lambda *_: pytest.fail("the data were read"))
    (run.folder / "file").touch()
    assert run.train(**{setting: run.folder / "file"}) == 2
    assert f"{run.folder / 'file'}: cannot be used as a folder to write to" in caplog.text


@pytest.mark.fault("B5")
def test_checkpoints_that_are_all_damaged_stop_the_run_before_any_work(
    finished: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for path in finished.checkpoints.glob("*.pth.tar"):
        path.write_bytes(path.read_bytes()[:-5000])
    files = [*finished.checkpoints.iterdir(), *finished.results.iterdir()]
    before = {path: path.read_bytes() for path in files}
    monkeypatch.setattr(training_program, "load_dataset", lambda *_: pytest.fail("the data were read"))
    assert finished.train() == 2
    assert "no checkpoint can be used:" in caplog.text
    for name in ("checkpoint.pth.tar", "checkpoint_previous.pth.tar", "model_best.pth.tar"):
        assert f"{finished.checkpoints / name}: cannot be read: its end is missing" in caplog.text
    assert [*finished.checkpoints.iterdir(), *finished.results.iterdir()] == files
    assert {path: path.read_bytes() for path in files} == before


@pytest.mark.slow  # torch.compile is imported
@pytest.mark.fault("B11")
def test_weights_are_saved_under_the_names_of_the_bare_model(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a run whose kernels are compiled."""
    kernels = ChunkedKernels(*(torch.compile(part, backend="eager") for part in EAGER))
    monkeypatch.setattr(preparation, "fastest_kernels", lambda *_, **__: ("compiled", kernels))
    assert run.train(epochs=1) == 0
    state = load_checkpoint(run.checkpoints / "checkpoint.pth.tar")
    settings = settings_from_dict(ModelSettings, state["model_settings"], source="")
    bare = preparation.build_model(settings).state_dict()
    assert state["kernels"] == "compiled"
    assert list(state["model"]) == list(bare)
    assert set(state["ema"]) <= set(bare)


@pytest.mark.fault("B12")
@pytest.mark.parametrize("to_half", [False, True])
def test_a_run_goes_on_where_the_precision_is_another(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, to_half: bool
) -> None:
    """Precision 'auto' is fp16 on some GPUs and fp32 on a CPU: the scale of one is not that of the other."""
    for epochs, half in ((1, not to_half), (2, to_half)):
        precision = torch.float16 if half else torch.float32
        monkeypatch.setattr("src.training.choose_precision", lambda *_, chosen=precision: chosen)
        with caplog.at_level(logging.INFO):
            assert run.train(epochs=epochs, precision="auto") == 0
        state = load_checkpoint(run.checkpoints / "checkpoint.pth.tar")
        assert bool(state["scaler"]) == half
    assert "written with another precision: the gradient scale starts anew" in caplog.text
    assert [row["epoch"] for row in run.history()] == [1, 2]


def spoil_ligands(run: Run, count: int) -> None:
    for ligand in sorted((run.folder / "data").glob("*/*.sdf"))[:count]:
        ligand.write_text("garbage")


@pytest.mark.fault("F9")
@pytest.mark.parametrize("num_usable", [0, 1, 2])
def test_too_few_usable_complexes_are_refused_with_the_reasons(
    run: Run, caplog: pytest.LogCaptureFixture, num_usable: int
) -> None:
    spoil_ligands(run, 16 - num_usable)
    with caplog.at_level(logging.INFO):
        assert run.train() == 2
    assert f"{16 - num_usable} of 16 complexes cannot be used" in caplog.text
    assert re.search(rf"ligand not usable +{16 - num_usable}\n", caplog.text)
    assert "more than max_failed_fraction = 0.5" in caplog.text
    caplog.clear()
    assert run.train(max_failed_fraction=1) == 2
    assert f"{num_usable} usable complexes give" in caplog.text
    assert not list(run.checkpoints.glob("*.pth.tar"))


@pytest.mark.fault("F10")
def test_many_failures_are_a_loud_table_and_too_many_stop_the_run(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    assert run.train("--check-data") == 0
    assert "ATTENTION" not in caplog.text
    spoil_ligands(run, 3)
    assert run.train() == 0
    assert "ATTENTION: 3 of 16 complexes cannot be used (19 %):\n      3 x ligand: " in caplog.text
    assert run.train("--fresh", max_failed_fraction=0.1) == 2
    assert "3 of 16 complexes cannot be used, more than max_failed_fraction = 0.1" in caplog.text


@pytest.mark.fault("B9", "C12")
@pytest.mark.fault("C12")
def test_another_label_is_another_run(finished: Run, caplog: pytest.LogCaptureFixture) -> None:
    index = finished.folder / "data" / "index" / "INDEX_test.2020R1.lst"
    index.write_text(index.read_text().replace("Kd=3nM", "Kd=4nM"))
    assert finished.train() == 2
    assert "codes, labels or their split" in caplog.text


@pytest.mark.fault("B3")
@pytest.mark.fault("C12")
def test_a_complex_more_is_another_run(finished: Run, caplog: pytest.LogCaptureFixture) -> None:
    before = {path: path.read_bytes() for path in finished.checkpoints.iterdir() if path.suffix == ".tar"}
    write_complex(finished.folder / "data", "2bbb", shift=(0.02, 0.0, 0.0))
    index = finished.folder / "data" / "index" / "INDEX_test.2020R1.lst"
    index.write_text(index.read_text() + "2bbb  2.00  2010  Kd=3nM  // 2bbb.pdf (ACM)\n")
    assert finished.train() == 2
    assert "codes, labels or their split" in caplog.text
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.fault("M10")
def lose(monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    """Worker processes that do not survive one of the complexes."""
    real = cache_module.run_supervised

    def run(function: Callable, tasks: Sequence, **options: object) -> Iterator:
        for index, result in real(function, tasks, **options):
            yield index, WorkerFault("crashed") if tasks[index].code == lost else result

    monkeypatch.setattr(cache_module, "run_supervised", run)


@pytest.mark.fault("F5", "C12")
def test_a_complex_that_was_lost_stays_out_of_the_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        lose(patch, "1a05")
        assert run.train(epochs=1) == 0
    began = load_checkpoint(run.checkpoints / "checkpoint.pth.tar")
    assert began["dataset"]["lost"] == ["1a05"]
    caplog.clear()
    assert run.train(epochs=2) == 0
    assert "belongs to another run" not in caplog.text
    state = load_checkpoint(run.checkpoints / "checkpoint.pth.tar")
    assert state["progress"]["epoch"] == 2
    for key in ("dataset", "split"):
        assert state[key] == began[key]
    with open(run.results / "skipped.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["code"], row["stage"]) == ("1a05", "worker")
    before = {name: (run.results / name).read_bytes() for name in ("metrics.json", "skipped.csv", "splits.json")}
    assert run.train("--evaluate") == 0
    assert {name: (run.results / name).read_bytes() for name in before} == before
    assert run.train("--fresh", epochs=1) == 0
    assert load_checkpoint(run.checkpoints / "checkpoint.pth.tar")["dataset"]["lost"] == []


def test_a_complex_of_the_run_that_is_lost_now_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert run.train(epochs=1) == 0
    shutil.rmtree(run.folder / "processed")
    with monkeypatch.context() as patch:
        lose(patch, "1a05")
        assert run.train(epochs=2) == 2
    assert "; 1a05 could not be read now" in caplog.text
    assert run.train(epochs=2) == 0


def test_results_of_an_earlier_run_are_moved_and_not_overwritten(
    finished: Run, caplog: pytest.LogCaptureFixture
) -> None:
    old = {path.name: path.read_bytes() for path in finished.results.iterdir() if path.name in RESULTS}
    (finished.results / "notes.txt").write_text("mine")
    elsewhere = str(finished.folder / "other checkpoints")
    with caplog.at_level(logging.INFO):
        assert finished.train(checkpoint_dir=elsewhere, seed=7) == 0
    (moved,) = finished.results.glob("before-*")
    assert f"results of an earlier run are now in {moved}" in caplog.text
    kept = {path.name: path.read_bytes() for path in moved.iterdir()}
    assert {name: kept[name] for name in RESULTS} == old
    assert (finished.results / "notes.txt").read_text() == "mine"
    assert (finished.results / "metrics.json").is_file()
    assert finished.train(checkpoint_dir=elsewhere, seed=7) == 0  # goes on: nothing is moved
    assert list(finished.results.glob("before-*")) == [moved]


RESULTS = ("history.csv", "history.jsonl", "run.json", "metrics.json", "test_predictions.csv")


@pytest.mark.fault("M1", "M2")
def test_all_faults_are_named_before_anything_is_touched(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    assert run.train(learing_rate=1e-3, epochs=0, gradient_accumulation_steps=0, train_split=1.2, device="gpu") == 2
    assert "CONFIG has 5 faults" in caplog.text
    for named in ("'learning_rate'?", "epochs = 0", "gradient_accumulation_steps = 0", "train_split = 1.2", "'gpu'"):
        assert named in caplog.text
    assert sorted(path.name for path in run.folder.iterdir()) == ["data"]


@pytest.mark.fault("M4")
@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU")
def test_without_a_gpu_the_device_is_said(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert run.train(device="auto", epochs=1) == 0
    assert "weights on cpu in float32" in caplog.text


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    run.train(epochs=3)
    weights = run.weights()
    path = run.checkpoints / "checkpoint.pth.tar"
    path.write_bytes(path.read_bytes()[:-5000])
    with caplog.at_level(logging.INFO):
        assert run.train(epochs=3) == 0
    assert "checkpoints not used:" in caplog.text
    assert "checkpoint.pth.tar: cannot be read: its end is missing" in caplog.text
    _, state = newest_checkpoint(run.checkpoints)  # that of the best epoch, where it is the last one
    assert all(torch.equal(value, state["model"][name]) for name, value in weights.items())


@pytest.mark.fault("K5")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": {}}, "its split must be lists of codes"),
        ({"split": {"train": [], "validation": [], "test": []}}, "none of the training codes"),
        ({"dataset": {"lost": [1]}}, "odd entries"),
    ],
)
def test_a_best_model_of_odd_data_is_refused_with_a_sentence(
    run: Run, caplog: pytest.LogCaptureFixture, changes: dict, message: str
) -> None:
    assert run.train(epochs=1) == 0
    best = run.checkpoints / "model_best.pth.tar"
    save_checkpoint(best, {**load_checkpoint(best), **changes})
    assert run.train("--evaluate") == 2
    assert message in caplog.text


def test_check_data_prints_the_audit_and_trains_nothing(run: Run, capsys: pytest.CaptureFixture) -> None:
    shutil.rmtree(run.folder / "data" / "1a03")
    assert run.train("--check-data") == 0
    out = capsys.readouterr().out
    assert re.search(r"lines in the index +16\n", out)
    assert re.search(r"files missing +1\n", out)
    assert re.search(r"graphs +15 ", out)
    assert "1a03 (files): no folder of this name" in out
    for method in ("random", "time", "cluster", "scaffold"):
        assert re.search(
            rf"^{method} split: (\d+ train, \d+ validation|not possible: \d+ usable)", out, re.MULTILINE
        ), out
    assert not list(run.checkpoints.glob("*.pth.tar"))
    assert not run.results.exists()


@pytest.mark.fault("F11")
def test_a_copy_that_was_cut_short_is_counted_by_what_is_missing(
    run: Run, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    data = run.folder / "data"
    (data / "1a00" / "1a00_pocket.pdb").unlink()
    (data / "1a01" / "1a01_ligand.sdf").unlink()
    for path in (data / "1a02").iterdir():
        path.unlink()
    shutil.rmtree(data / "1a03")
    shutil.copytree(data / "1a04", data / "9zzz")  # no line in the index
    (data / "1a05" / "1a05_ligand.sdf").write_bytes(b"")
    (data / "1a06" / "1a06_pocket.pdb").write_bytes((data / "1a06" / "1a06_pocket.pdb").read_bytes()[:40])
    caplog.set_level("INFO")
    assert run.train("--check-data") == 0
    assert "1 folders of other complexes" in caplog.text
    out = capsys.readouterr().out
    counts = {
        "lines in the index": 16,
        "files missing": 4,
        "ligand not usable": 1,
        "protein not usable": 1,
        "graphs": 10,
    }
    for name, count in counts.items():
        assert re.search(rf"^ *{name} +{count}\b", out, re.MULTILINE), name
    for code, reason in {
        "1a00": "no pocket or protein file",
        "1a01": "no ligand file",
        "1a02": "no ligand file",
        "1a03": "no folder of this name",
    }.items():
        assert f"{code} (files): {reason}" in out


@pytest.mark.fault("F12")
def test_codes_in_any_letter_case_are_one_and_a_second_label_for_one_is_named(
    run: Run, capsys: pytest.CaptureFixture
) -> None:
    index = run.folder / "data" / "index" / "INDEX_test.2020R1.lst"
    first, second, *rest = index.read_text().splitlines()[1:]
    (run.folder / "data" / "1a02").rename(run.folder / "data" / "1A02")
    same, other = second.upper().replace("KD=2NM", "Kd=2nM"), first.upper().replace("KD=1NM", "Kd=5nM")
    index.write_text("\n".join([first.replace("1a00", "1A00"), second, *rest, same, other, ""]))
    assert run.train("--check-data") == 0
    out = capsys.readouterr().out
    assert re.search(r"lines in the index +18\n", out)
    assert re.search(r"unreadable lines +2\n", out)
    assert re.search(r"graphs +16 ", out)
    assert "line 17 (index): 1a01 came before with the same label" in out
    assert "line 18 (index): 1a00 came before with " in out


@pytest.mark.fault("F9")
def test_check_data_with_nothing_usable_is_no_success(run: Run) -> None:
    for ligand in (run.folder / "data").glob("*/*.sdf"):
        ligand.write_text("garbage")
    assert run.train("--check-data") == 2


@pytest.mark.fault("M6")
def test_the_audit_fits_a_terminal_that_knows_only_ascii(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (run.folder / "data" / "1a00" / "1a00_ligand.sdf").write_text(sdf_text(shift=(500.0, 0.0, 0.0)))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert run.train("--check-data") == 0
    sys.stdout.flush()
    assert b"no protein atom within 6" in written.getvalue()


@pytest.mark.fault("F2")
def test_graphs_of_other_settings_are_named_with_the_command_that_deletes_them(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    run.train("--check-data")
    (old,) = (path for path in (run.folder / "processed").iterdir() if path.is_dir())
    run.train("--check-data", visnet_cutoff=4.0)
    assert f"delete with: {shlex.join(['rm', '-r', str(old)])}" in caplog.text


@pytest.mark.fault("M1", "M2", "M4")
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


@pytest.mark.fault("D14")
def test_labels_that_are_all_the_same_have_no_correlation(run: Run, capsys: pytest.CaptureFixture) -> None:
    index = run.folder / "data" / "index" / "INDEX_test.2020R1.lst"
    index.write_text(re.sub(r"Kd=\d+nM", "Kd=1nM", index.read_text()))
    assert run.train() == 0
    assert re.search(r"this model .* n/a +n/a", capsys.readouterr().out)


def test_a_validation_set_of_bounds_alone_is_refused(finished: Run) -> None:
    index = finished.folder / "data" / "index" / "INDEX_test.2020R1.lst"
    held_out = load_checkpoint(finished.checkpoints / "checkpoint.pth.tar")["split"]["validation"]
    lines = [line.replace("Kd=", "Kd<") if line[:4] in held_out else line for line in index.read_text().splitlines()]
    index.write_text("\n".join([*lines, ""]))
    shutil.rmtree(finished.checkpoints)
    assert finished.train(censored_labels="bound") == 2
    assert not list(finished.checkpoints.glob("*.pth.tar"))


@pytest.mark.fault("M3")
def test_a_path_that_is_relative_starts_from_the_folder_of_config(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_program, "ROOT", run.folder)
    assert run.train("--check-data", dataset_path="data/") == 0


@pytest.mark.fault("D7")
def test_nan_everywhere_stops_with_exit_code_1(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forward = preparation.build_model.__globals__["AffinityModel"].forward
    monkeypatch.setattr("src.model.AffinityModel.forward", lambda model, batch: forward(model, batch) * torch.nan)
    assert run.train() == 1
    assert "training stopped: " in caplog.text
    assert not any(run.checkpoints.glob("*.pth.tar"))


def test_plan_prints_what_fits_and_trains_nothing(run: Run, capsys: pytest.CaptureFixture) -> None:
    assert run.train("--plan") == 0
    out = capsys.readouterr().out
    assert re.search(r"^complexes +16$", out, re.MULTILINE)
    assert re.search(r"^batch_size 256 +\d+\.\d\d GB", out, re.MULTILINE)
    assert re.search(r"^6 GB GPU +5\.08 GB +[\d,]+ +[\d,]+ +[\d,]+$", out, re.MULTILINE)
    assert re.search(r'"batch_size": \d+,\n +"gradient_accumulation_steps": \d+,\n +"message_passing": "\w+",', out)
    assert not run.checkpoints.exists()
    assert not run.results.exists()


def test_a_run_with_auto_keeps_its_numbers_when_it_goes_on(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("src.hardware.memory_plan.usable_memory", lambda _: 1e12)
    assert run.train(batch_size="auto") == 0
    facts = json.loads((run.results / "run.json").read_text())
    keys = ("batch_size", "gradient_accumulation_steps", "message_passing")
    assert [facts["config"][key] for key in keys] == [16, 1, "keep"]
    monkeypatch.setattr("src.hardware.memory_plan.usable_memory", lambda _: 1.0)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert run.train(batch_size="auto", epochs=3) == 0
    assert "going on from" in caplog.text
    assert "measuring the memory" not in caplog.text
    state = load_checkpoint(run.checkpoints / "checkpoint.pth.tar")
    assert [state["config"][key] for key in keys] == [16, 1, "keep"]
    # The numbers written out are the same run.
    assert run.train(batch_size=16, epochs=4) == 0
    assert [row["epoch"] for row in run.history()] == [1, 2, 3, 4]


def test_a_run_that_goes_on_keeps_its_kernels(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, str | None]] = []

    def fastest(*_: object, num_steps: int, earlier: str | None, **__: object) -> tuple[str, Kernels]:
        asked.append((num_steps, earlier))
        return "compiled", ChunkedKernels(*EAGER)  # stands for compiled ones

    def kernels() -> str:
        return load_checkpoint(run.checkpoints / "checkpoint.pth.tar")["kernels"]

    monkeypatch.setattr(preparation, "fastest_kernels", fastest)
    assert run.train(epochs=1, batch_size=1) == 0
    num_train = len(json.loads((run.results / "run.json").read_text())["split"]["train"])
    assert asked == [(num_train, None)]
    assert kernels() == "compiled"
    assert run.train(epochs=2, batch_size=1) == 0
    assert asked[1:] == [(2 * num_train, "compiled")]
    assert run.train("--fresh", epochs=1, batch_size=1, message_passing="fast") == 0
    assert kernels() == "plain"
    assert run.train(epochs=2, batch_size=1, message_passing="auto") == 0
    assert len(asked) == 2
