"""Whatever ends a run, and whenever: the same command goes on, and ends as if nothing had been.

Compared are weights, optimizer, schedule, scale, average, random numbers, counters, history and results, by hash.
"""

from __future__ import annotations

import functools
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from src.checkpoint import load_checkpoint, newest_checkpoint, progress_of
from tests.complexes import write_dataset
from tests.faults.launcher import POLL_S, Ended, Launcher, Patch, Process
from tests.training_runs import CODES, Run, fingerprints, finish, start

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX processes and signals")

# Ten complexes to train on: windows of 2, 2 and 1 batches, and saves in the middle of an epoch.
PLAIN = {
    "epochs": 3,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "checkpoint_every_batches": 2,
    "message_passing": "fast",
    "coordinate_noise": 0.0,
    "decoy_fraction": 0.0,
}
KINDS = {
    "plain": PLAIN,
    "noise and decoys": {**PLAIN, "coordinate_noise": 0.1, "decoy_fraction": 0.3},
    "fp16 with overflows, plateau, no average, two loader workers": {
        **PLAIN,
        "precision": "fp16",
        "gradient_accumulation_steps": 3,
        "optimizer": "adamw",
        "scheduler": "plateau",
        "plateau_patience": 0,
        "learning_rate": 0.05,
        "epochs": 5,
        "ema_decay": 0.0,
        "loader_num_workers": 2,
    },
    "stopped early": {**PLAIN, "epochs": 30, "early_stopping_patience": 2, "learning_rate": 0.2, "ema_decay": 0.5},
    "long": {**PLAIN, "epochs": 8},
    "batches with NaN": {**PLAIN, "max_skipped_fraction": 1.0},
    "budget": {**PLAIN, "epochs": 4, "max_atoms_per_batch": 50, "checkpoint_every_batches": 1, "warmup_epochs": 2},
}
# What happens in every process of a run of this kind; by the codes, so that a resume changes nothing.
ALWAYS = {
    "fp16 with overflows, plateau, no average, two loader workers": [
        Patch("overflow", "after", "src.model.AffinityModel.forward", 0, "1a0[0-4]")
    ],
    "batches with NaN": [Patch("nan", "after", "src.model.AffinityModel.forward", 0, "1a0[0-2]")],
}
BATCH = "src.optimization.gradients.WindowGradient._backward"  # called once for each batch of the training set
ACCUMULATE = "src.optimization.gradients.WindowGradient.accumulate"
LATEST = r"/\.?checkpoint\.pth\.tar"  # the file, or its temporary one
Wanted = Callable[..., dict[str, str]]


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher() as one:
        yield one


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, launcher: Launcher) -> dict[str, str]:
    """Settings that name the data set, whose graphs are built once for all runs."""
    run = Run(tmp_path_factory.mktemp("shared"))
    write_dataset(run.folder / "data", CODES)
    assert launcher.run(run.options("--check-data"), folder=run.folder).code == 0
    return {"dataset_path": str(run.folder / "data"), "processed_data_dir": str(run.folder / "processed")}


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory, launcher: Launcher, data: dict[str, str]) -> Wanted:
    """What a run of this kind leaves that nothing ever stopped; each kind is run once."""
    known: dict[str, dict[str, str]] = {}

    def find(kind: str = "plain") -> dict[str, str]:
        if kind not in known:
            run = Run(tmp_path_factory.mktemp("whole"))
            ended = launcher.run(run.options(**KINDS[kind], **data), *ALWAYS.get(kind, ()), folder=run.folder)
            assert ended.code == 0, ended.err
            known[kind] = fingerprints(run)
        return known[kind]

    return find


class Command:
    """One command, given again and again in one folder."""

    def __init__(self, launcher: Launcher, folder: Path, settings: dict[str, object], always: Sequence[Patch] = ()):
        self.launcher, self.run = launcher, Run(folder)
        self.options = self.run.options(**settings)
        self.always = always
        self.position = (0, 0)  # of the newest checkpoint: epoch and batch, from 0

    def __call__(self, *patches: Patch) -> Ended:
        return self.start(*patches).wait()

    def start(self, *patches: Patch) -> Process:
        return self.launcher.start(self.options, *self.always, *patches, folder=self.run.folder)

    def ended_by(self, code: int, *patches: Patch, trace: bool = False) -> str:
        """Give it, see how it ends, and that one can go on from there; what it wrote to standard error."""
        ended = self(*patches)
        assert (ended.code, "Traceback" in ended.err) == (code, trace), (patches, ended.err)
        if any(self.run.checkpoints.glob("*.pth.tar")):
            before, self.position = self.position, progress_of(newest_checkpoint(self.run.checkpoints)[1])
            assert self.position >= before, patches
        return ended.err

    def ends_like(self, whole: dict[str, str]) -> None:
        """Give it once more, and look at all it leaves."""
        ended = self()
        assert ended.code == 0, ended.err
        assert fingerprints(self.run) == whole
        assert not list(self.run.checkpoints.glob(".*.tmp"))


@pytest.fixture
def command(launcher: Launcher, tmp_path: Path, data: dict[str, str]) -> Command:
    return Command(launcher, tmp_path, {**PLAIN, **data})


def test_a_fork_is_what_a_process_is(tmp_path: Path, data: dict[str, str], wanted: Wanted) -> None:
    """So that all the forks below say something about main.py."""
    run = Run(tmp_path)
    code, _, err = finish(start("main.py", run.options(**PLAIN, **data)))
    assert code == 0, err
    assert fingerprints(run) == wanted()
    assert wanted().keys() >= {"model", "ema", "optimizer", "rng", "progress", "history", "metrics.json"}


# SIGKILL


def kill_at_random(new_command: Callable[[Path], Command], folder: Path, whole: dict, *, kills: int, seed: int) -> int:
    """Kill until there are enough kills: a run that ends before its kill is compared, and the next one started.

    Returns:
        How many kills there were; fewer where the runs end too fast to be killed.
    """
    draw, done, longest = random.Random(seed), 0, 1.0
    for number in range(10 * kills):
        command = new_command(folder / str(number))
        command.run.folder.mkdir(parents=True)
        killed = True
        while killed and done < kills:
            started = time.monotonic()
            process = command.start()
            time.sleep(draw.uniform(0.0, longest))
            process.send(signal.SIGKILL)
            killed = process.wait().code == -signal.SIGKILL
            done += killed
            if not killed:
                longest = time.monotonic() - started
        command.ends_like(whole)
        if done == kills:
            break
    return done


@pytest.mark.fault("A1", "C6")
def test_killed_at_random_moments(launcher: Launcher, tmp_path: Path, data: dict[str, str], wanted: Wanted) -> None:
    def new_command(folder: Path) -> Command:
        return Command(launcher, folder, {**PLAIN, **data})

    assert kill_at_random(new_command, tmp_path, wanted(), kills=5, seed=1) == 5


@pytest.mark.slow
@pytest.mark.fault("A1", "C4", "C6", "C8")
@pytest.mark.parametrize("seed", [10, 11])
@pytest.mark.parametrize("kind", KINDS)
def test_killed_many_times(
    launcher: Launcher, tmp_path: Path, data: dict[str, str], wanted: Wanted, kind: str, seed: int
) -> None:
    settings, always = {**KINDS[kind], **data}, ALWAYS.get(kind, ())
    new_command = functools.partial(Command, launcher, settings=settings, always=always)
    assert kill_at_random(new_command, tmp_path, wanted(kind), kills=7, seed=seed) == 7


@pytest.mark.slow
@pytest.mark.fault("A1")
@pytest.mark.skipif("AIDD_REAL_DATA" not in os.environ, reason="AIDD_REAL_DATA is not set")
def test_killed_on_real_complexes(launcher: Launcher, tmp_path: Path) -> None:
    folder = Path(os.environ["AIDD_REAL_DATA"]) / "pdbbind"
    (index,) = (folder / "index").glob("INDEX_*")
    lines = [line for line in index.read_text(encoding="utf-8").splitlines() if (folder / line[:4]).is_dir()]
    (tmp_path / "INDEX_part.2020R1.lst").write_text("\n".join([*lines[:: len(lines) // 60][:60], ""]), encoding="utf-8")
    settings = {
        **PLAIN,
        "dataset_path": str(folder),
        "index_file": str(tmp_path / "INDEX_part.2020R1.lst"),
        "processed_data_dir": str(tmp_path / "processed"),
        "keep_covalent": True,
        "keep_multi_ligands": True,
        "keep_incomplete_ligands": True,
        "batch_size": 4,
    }
    whole = Command(launcher, tmp_path, settings)
    ended = whole()
    assert ended.code == 0, ended.err
    new_command = functools.partial(Command, launcher, settings=settings)
    assert kill_at_random(new_command, tmp_path / "killed", fingerprints(whole.run), kills=6, seed=3) == 6


# The first save of a process: the file of an earlier one lies there.
AROUND_A_SAVE = {
    "before the temporary file": Patch("SIGKILL", "before", "src.checkpoint.write_plain"),
    "before the first byte": Patch("SIGKILL", "before", "torch.save", 1, LATEST),
    "half written": Patch("SIGKILL", "halfway", "torch.save", 1, LATEST),
    "written, before its fsync": Patch("SIGKILL", "before", "os.fsync", 1, LATEST),
    "on the disk, before the check": Patch("SIGKILL", "after", "os.fsync", 1, LATEST),
    "checked, before the old one is kept": Patch("SIGKILL", "before", "src.checkpoint._keep_as_previous"),
    "before the second name of the old one": Patch("SIGKILL", "before", "os.link"),
    "between the names of the old one": Patch("SIGKILL", "after", "os.link"),
    "the old one kept, its link not yet removed": Patch("SIGKILL", "after", "os.replace", 1, "_previous"),
    "the old one kept, before the new name": Patch("SIGKILL", "after", "src.checkpoint._keep_as_previous"),
    "just before the new name": Patch("SIGKILL", "before", "os.replace", 1, rf"{LATEST}$"),
    "just after the new name": Patch("SIGKILL", "after", "os.replace", 1, rf"{LATEST}$"),
    "before the fsync of the folder": Patch("SIGKILL", "before", "os.fsync", 1, "/checkpoints$"),
    "after the fsync of the folder": Patch("SIGKILL", "after", "os.fsync", 1, "/checkpoints$"),
    "before the history": Patch("SIGKILL", "before", "src.optimization.saving.write_history"),
    "between the two files of the history": Patch("SIGKILL", "after", "src.optimization.progress.write_csv"),
    "half of the best model": Patch("SIGKILL", "halfway", "torch.save", 1, "/.model_best"),
    "between the best model and the checkpoint": Patch("SIGKILL", "after", "os.replace", 1, r"model_best\.pth\.tar$"),
}


@pytest.mark.fault("A2", "B17", "C2")
def test_killed_around_a_save(launcher: Launcher, tmp_path: Path, data: dict[str, str], wanted: Wanted) -> None:
    command = Command(launcher, tmp_path, {**KINDS["long"], **data})
    command.ended_by(-signal.SIGKILL, Patch("SIGKILL", "before", BATCH, 4))
    for patch in AROUND_A_SAVE.values():
        command.ended_by(-signal.SIGKILL, patch)
        assert command.position > (0, 0), patch
    command.ended_by(-signal.SIGKILL, Patch("SIGKILL", "before", "main.evaluate"))
    command.ends_like(wanted("long"))


@pytest.mark.fault("A9")
def test_killed_before_the_first_checkpoint(command: Command, wanted: Wanted) -> None:
    for moment in (
        Patch("SIGKILL", "before", "main.load_dataset"),
        Patch("SIGTERM", "before", "src.run.trainer_setup.build_model"),
    ):
        assert command(moment).code in (-signal.SIGKILL, 143)
    assert command(Patch("SIGKILL", "before", BATCH, 2)).code == -signal.SIGKILL
    assert not list(command.run.checkpoints.glob("*.pth.tar"))
    command.ends_like(wanted())


@pytest.mark.fault("A9")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_torch_is_imported(tmp_path: Path, number: int) -> None:
    process = start("main.py", Run(tmp_path).options())
    while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(POLL_S)
    os.killpg(process.pid, number)
    code, out, _ = finish(process)
    assert (code, out) == (-number, "")
    assert not list(tmp_path.iterdir())


# Signals that ask for a stop


# Each goes on where the one before it stopped, at (epoch, batch) as given, and stops there.
SIGINT_AT = {
    "the first batch": (Patch("group SIGINT", "before", BATCH), (0, 2)),
    "the middle of a window": (Patch("group SIGINT", "before", BATCH, 2), (0, 4)),
    "the last batch of an epoch": (Patch("group SIGINT", "after", BATCH), (0, 5)),
    "validation": (Patch("group SIGINT", "before", "src.training.predict_batches"), (1, 0)),
    "a save": (Patch("group SIGINT", "halfway", "torch.save", 1, LATEST), (1, 2)),
    "the end of an epoch": (Patch("group SIGINT", "before", "src.optimization.saving.write_history"), (2, 0)),
    "the last validation": (Patch("group SIGINT", "before", "src.training.predict_batches"), (3, 0)),
    "evaluation": (Patch("group SIGINT", "before", "main.evaluate"), (3, 0)),
}


@pytest.mark.fault("A3", "C1", "C2", "C3", "C4", "C6")
def test_ctrl_c(command: Command, wanted: Wanted) -> None:
    for moment, (patch, position) in SIGINT_AT.items():
        err = command.ended_by(130, patch)
        assert "Go on with: python main.py" in err
        assert command.position == position, moment
        assert ("SIGINT received" in err) == (moment != "evaluation")
    command.ends_like(wanted())


@pytest.mark.fault("A3", "A5")
def test_stopped_while_graphs_are_built(
    launcher: Launcher, tmp_path: Path, data: dict[str, str], wanted: Wanted
) -> None:
    own_cache = {**data, "processed_data_dir": str(tmp_path / "processed")}
    command = Command(launcher, tmp_path, {**PLAIN, **own_cache})
    for number, (action, code) in enumerate([("group SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)]):
        err = command.ended_by(code, Patch(action, "before", "src.data.cache.read_ligand", 5))
        assert f"building {16 - 4 * number} graphs" in err  # those of the process before are kept
        assert "Go on with: python main.py" in err
    assert not list(command.run.checkpoints.glob("*.pth.tar"))
    command.ends_like(wanted())


@pytest.mark.fault("A5", "A8")
def test_other_signals_to_stop(command: Command, wanted: Wanted) -> None:
    command.ended_by(143, Patch("SIGTERM", "before", BATCH, 3))
    assert command.position == (0, 4)  # the window was finished
    command.ended_by(129, Patch("SIGHUP", "before", BATCH, 2))
    assert command.position == (1, 2)
    command.ends_like(wanted())


@pytest.mark.fault("A5")
def test_a_job_queue_asks_for_a_save_and_later_for_the_end(command: Command, wanted: Wanted) -> None:
    """SLURM with --signal=USR1@90: SIGUSR1, then SIGTERM when the time is up."""
    no_saves = [*command.options, "--set", "checkpoint_every_batches=0"]
    asked = Patch("SIGUSR1", "before", BATCH, 1)
    ended = command.launcher.run(no_saves, asked, Patch("SIGKILL", "before", BATCH, 3), folder=command.run.folder)
    assert ended.code == -signal.SIGKILL
    assert newest_checkpoint(command.run.checkpoints)[1]["progress"]["next_batch"] == 2
    ended = command(Patch("SIGUSR1", "before", BATCH, 2), Patch("SIGTERM", "before", BATCH, 5))
    assert ended.code == 143
    assert "SIGUSR1: saved to" in ended.err
    command.ends_like(wanted())


@pytest.mark.fault("A5")
def test_asked_for_a_save_where_there_is_nothing_to_save(command: Command, wanted: Wanted) -> None:
    moments = [Patch("SIGUSR1", "before", moment) for moment in ("main.load_dataset", "main.evaluate")]
    assert command(*moments).code == 0
    assert fingerprints(command.run) == wanted()


@pytest.mark.fault("A5", "F5")
def test_a_job_queue_that_asks_the_whole_group_costs_no_complex(launcher: Launcher, tmp_path: Path) -> None:
    """SLURM without B: in --signal; here at each graph that is built."""
    run = Run(tmp_path)
    write_dataset(run.folder / "data", CODES)
    asked = Patch("group SIGUSR1", "before", "src.data.cache._Folder.add", 0)
    ended = launcher.run(run.options("--check-data", processing_num_workers=2), asked, folder=run.folder)
    assert ended.code == 0, ended.err
    assert f"graphs{len(CODES):>25}" in ended.out
    assert "lost" not in ended.err


SAVING = r"/\.INTERRUPTED\.pth\.tar"


@pytest.mark.fault("A4")
def test_ctrl_c_twice_and_three_times(command: Command, wanted: Wanted) -> None:
    first, second = Patch("SIGINT", "before", BATCH, 3), Patch("SIGINT", "before", BATCH, 4)
    command.ended_by(130, first, second)
    assert command.position == (0, 2)  # the second ends it at once, and what was saved before is there
    # The last patch is met first.
    halfway, before = (Patch("SIGINT", when, "torch.save", 1, SAVING) for when in ("halfway", "before"))
    command.ended_by(130, first, halfway, before)
    assert [path.name for path in command.run.checkpoints.iterdir() if "INT" in path.name] == []
    err = command.ended_by(130, Patch("SIGINT", "before", BATCH), halfway)
    assert "saving, please wait" in err
    assert (command.run.checkpoints / "INTERRUPTED.pth.tar").exists()
    command.ends_like(wanted())


@pytest.mark.fault("A6")
def test_sigterm_then_sigkill_during_a_slow_save(command: Command, wanted: Wanted) -> None:
    slow = Patch("sleep 60", "halfway", "torch.save", 1, SAVING)
    process = command.start(Patch("SIGTERM", "before", BATCH, 3), slow)
    process.wait_for_line("SIGTERM received")
    time.sleep(0.3)
    process.send(signal.SIGKILL)
    assert process.wait().code == -signal.SIGKILL
    assert newest_checkpoint(command.run.checkpoints)[0].name == "checkpoint.pth.tar"
    command.ends_like(wanted())


@pytest.mark.fault("A7", "C7")
def test_a_signal_to_the_group_with_loader_workers(
    launcher: Launcher, tmp_path: Path, data: dict[str, str], wanted: Wanted
) -> None:
    command = Command(launcher, tmp_path, {**PLAIN, **data, "loader_num_workers": 2})
    held = tmp_path / "held"
    for number, position in ((signal.SIGINT, (0, 2)), (signal.SIGTERM, (0, 4)), (signal.SIGHUP, (0, 5))):
        process = command.start(Patch(f"hold {held}", "before", BATCH))
        process.send_to_group(number, held)
        code, _, err = process.wait()
        assert (code, "Traceback" in err) == (128 + number, False), err
        assert err.count("received") == 1  # the workers say nothing
        assert progress_of(newest_checkpoint(command.run.checkpoints)[1]) == position
    command.ends_like(wanted())  # which had no workers: they change nothing


@pytest.mark.fault("A8")
def test_a_reader_that_goes_away_takes_nothing_from_the_run(command: Command, wanted: Wanted) -> None:
    readers = []
    for name in ("out.txt", "err.txt"):
        os.mkfifo(command.run.folder / name)
        readers.append(os.open(command.run.folder / name, os.O_RDONLY | os.O_NONBLOCK))
    process = command.start()
    select.select([readers[1]], [], [], 30)  # the run has opened its end, and written
    for reader in readers:
        os.close(reader)
    assert process.wait().code == 0
    assert fingerprints(command.run) == wanted()


@pytest.mark.fault("A10")
def test_stopped_and_continued(command: Command, wanted: Wanted) -> None:
    process = command.start()
    process.wait_for_line("epoch   1/")
    process.send(signal.SIGSTOP)
    time.sleep(0.3)
    process.send(signal.SIGCONT)
    assert process.wait().code == 0
    assert fingerprints(command.run) == wanted()


# Faults of the program


# Each goes on where the one before it stopped.
BUGS = {
    "forward": (Patch("RuntimeError", "before", "src.model.AffinityModel.forward", 2), (0, 0)),
    "backward": (Patch("ZeroDivisionError", "after", BATCH, 4), (0, 2)),
    "validation": (Patch("KeyError", "after", "src.training.predict_batches"), (0, 5)),
    "writing": (Patch("RuntimeError", "before", "src.optimization.saving.write_history"), (1, 0)),
}


@pytest.mark.fault("A11")
def test_a_bug_leaves_the_state_before_it(command: Command, wanted: Wanted) -> None:
    for moment, (patch, position) in BUGS.items():
        err = command.ended_by(1, patch, trace=True)
        assert "injected by the test" in err
        assert progress_of(load_checkpoint(command.run.checkpoints / "CRASHED.pth.tar")) == position, moment
    command.ends_like(wanted())


@pytest.mark.fault("A11")
def test_a_bug_in_the_middle_of_a_step_leaves_the_last_checkpoint(command: Command, wanted: Wanted) -> None:
    command.ended_by(-signal.SIGKILL, Patch("SIGKILL", "before", BATCH, 3))
    for function in (
        "torch.optim.Adam.step",
        "src.optimization.optimizer.WeightAverage.update",
        "src.optimization.progress.Progress.judge",
    ):
        err = command.ended_by(1, Patch("RuntimeError", "after", function), trace=True)
        assert "what was saved before is kept" in err
        assert not (command.run.checkpoints / "CRASHED.pth.tar").exists()
    command.ends_like(wanted())


@pytest.mark.fault("A11")
def test_an_error_outside_the_training_has_an_exit_code_too(command: Command, wanted: Wanted) -> None:
    for error in ("MemoryError", "RuntimeError", "OSError"):
        err = command.ended_by(1, Patch(error, "before", "main.evaluate"), trace=error != "MemoryError")
        assert ("the memory is full" in err) == (error == "MemoryError")
    command.ends_like(wanted())


# What a resume must not change


@pytest.mark.fault("C2", "C4", "C5", "C6")
def test_stopped_again_and_again_within_an_epoch(
    launcher: Launcher, tmp_path: Path, data: dict[str, str], wanted: Wanted
) -> None:
    """Every window in a process of its own; each complex is seen once an epoch, in the order of an unstopped run."""
    command = Command(launcher, tmp_path, {**PLAIN, **data})
    seen = Patch(f"record {tmp_path / 'seen.txt'}", "after", ACCUMULATE, 0)
    codes = [command(Patch("SIGTERM", "before", BATCH), seen).code for _ in range(5)]
    assert codes == [143] * 5
    assert command(seen).code == 0
    assert fingerprints(command.run) == wanted()
    whole = Command(launcher, tmp_path / "whole", {**PLAIN, **data})
    whole.run.folder.mkdir()
    whole(Patch(f"record {tmp_path / 'whole.txt'}", "after", ACCUMULATE, 0))
    lines = (tmp_path / "seen.txt").read_text().splitlines()
    assert lines == (tmp_path / "whole.txt").read_text().splitlines()
    for epoch in range(3):
        once = " ".join(lines[3 * epoch : 3 * epoch + 3]).split()
        assert len(once) == len(set(once)) == 10


@pytest.mark.fault("C3")
def test_a_finished_run_does_nothing_more(command: Command, wanted: Wanted) -> None:
    command.ended_by(-signal.SIGKILL, Patch("SIGKILL", "after", "os.replace", 3, r"model_best\.pth\.tar$"))
    assert command.position == (3, 0)
    command.ended_by(143, Patch("SIGTERM", "before", "main.evaluate"))
    files = {path.name: path.read_bytes() for path in command.run.checkpoints.iterdir()}
    for _ in range(2):
        ended = command(Patch("SIGKILL", "before", BATCH))
        assert ended.code == 0
        assert "this run is finished after 3 epochs" in ended.err
        assert fingerprints(command.run) == wanted()
    assert {path.name: path.read_bytes() for path in command.run.checkpoints.iterdir()} == files


@pytest.mark.fault("C4", "C6", "C7", "C8", "C9")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("plain", "long")])
def test_each_kind_of_run_goes_on(
    launcher: Launcher, tmp_path: Path, data: dict[str, str], wanted: Wanted, kind: str
) -> None:
    command = Command(launcher, tmp_path, {**KINDS[kind], **data}, ALWAYS.get(kind, ()))
    killed = Patch("SIGKILL", "before", "src.optimization.saving.write_history", 1)
    for patch in (Patch("SIGTERM", "before", BATCH, 4), killed):
        assert command(patch).code in (143, -signal.SIGKILL)
    assert command(Patch("group SIGINT", "before", "src.training.predict_batches", 2)).code == 130
    command.ends_like(wanted(kind))
    history = command.run.history()
    # Each kind is what its name says.
    assert any(row["fp16_overflows"] for row in history) == ("overflows" in kind)
    assert any(row["skipped_batches"] for row in history) == ("NaN" in kind)
    assert (len(history) < KINDS[kind]["epochs"]) == ("early" in kind)
    assert len({row["learning_rate"] for row in history}) > 1
