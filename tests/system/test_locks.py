"""A folder has one user at a time; who it is is named, and a dead one leaves nothing that is in the way."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest

from src.system.locks import HOLDER_NAME, LOCK_NAME, FolderInUseError, in_turn, sole_use
from src.system.storage import StorageError

posix = pytest.mark.skipif(os.name != "posix", reason="signals and fork of POSIX")
ROOT = Path(__file__).resolve().parents[2]

HOLDER = """
import os, sys, time
from pathlib import Path
from src.system.locks import sole_use
with sole_use({"results_dir": Path(sys.argv[1])}):
    if sys.argv[2] == "child" and not os.fork():
        print(os.getpid(), flush=True)
        time.sleep(60)
        os._exit(0)
    if sys.argv[2] == "alone":
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module", params=["alone", "child"])
def killed_in(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder whose holder was killed, alone or with a forked child that lives on, and what a second one was told."""
    folder = tmp_path_factory.mktemp("held")
    command = [sys.executable, "-c", HOLDER, str(folder), request.param]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    process.stdout.readline()
    with pytest.raises(FolderInUseError) as refused, sole_use({"results_dir": folder}):
        pass
    process.kill()
    process.wait()
    yield folder, f"process {process.pid} ", str(refused.value)
    if request.param == "child":
        os.killpg(process.pid, signal.SIGKILL)
    process.stdout.close()


@posix
@pytest.mark.fault("A12")
def test_a_second_process_is_told_who_has_the_folder_and_what_to_change(killed_in: tuple[Path, str, str]) -> None:
    folder, holder, message = killed_in
    assert message.startswith(f"results_dir: {folder} is in use by {holder}on {socket.gethostname()} since 20")
    assert "--set results_dir=" in message


@posix
@pytest.mark.fault("A12")
def test_the_folder_of_a_dead_process_is_taken_over(killed_in: tuple[Path, str, str]) -> None:
    """Also where the dead one left processes behind, such as those that collate batches."""
    folder, *_ = killed_in
    with sole_use({"results_dir": folder}):
        assert f"process {os.getpid()} " in (folder / HOLDER_NAME).read_text()


def test_nothing_is_left_behind_even_after_an_error(tmp_path: Path) -> None:
    (tmp_path / HOLDER_NAME).write_text("process 1 on the moon, long dead")
    with pytest.raises(ZeroDivisionError), sole_use({"results_dir": tmp_path}):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with sole_use({"results_dir": tmp_path}):
        pass


def test_one_folder_for_two_settings_is_locked_once(tmp_path: Path) -> None:
    with sole_use({"checkpoint_dir": tmp_path, "results_dir": tmp_path / ".." / tmp_path.name}):
        assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK_NAME, HOLDER_NAME]


def test_a_refusal_lets_go_of_the_folders_taken_before(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    both = {"checkpoint_dir": first, "results_dir": second}
    with sole_use({"results_dir": second}), pytest.raises(FolderInUseError, match=r"^results_dir: "), sole_use(both):
        pass
    with sole_use(both):
        pass


@pytest.mark.fault("K8")
def test_a_link_laid_in_the_way_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / HOLDER_NAME).symlink_to(victim)
    with sole_use({"results_dir": folder}):
        pass
    assert victim.read_text() == "precious"


def test_what_a_stranger_wrote_as_holder_is_one_printable_line(tmp_path: Path) -> None:
    with sole_use({"results_dir": tmp_path}):
        (tmp_path / HOLDER_NAME).write_bytes(b"\x1b[2Jprocess \xff\n" * 1000)
        with pytest.raises(FolderInUseError) as refused, sole_use({"results_dir": tmp_path}):
            pass
        (tmp_path / HOLDER_NAME).unlink()
        with pytest.raises(FolderInUseError, match="in use by another process"), sole_use({"results_dir": tmp_path}):
            pass
    assert str(refused.value).isprintable()


@pytest.mark.fault("F4")
def test_a_second_builder_waits_says_so_once_and_then_has_its_turn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    acts = []

    def second() -> None:
        with in_turn(tmp_path):
            acts.append("second")

    thread = threading.Thread(target=second)
    with caplog.at_level(logging.INFO), in_turn(tmp_path):
        thread.start()
        time.sleep(0.5)  # several rounds of waiting
        acts.append("first")
    thread.join(10)
    assert acts == ["first", "second"]
    (record,) = caplog.records
    assert f"written to by process {os.getpid()} on" in record.getMessage()


def test_a_run_does_not_wait_for_itself(tmp_path: Path) -> None:
    """Results and graphs may share a folder."""
    entered = threading.Event()

    def build() -> None:
        with in_turn(tmp_path / ".." / tmp_path.name):
            entered.set()

    with sole_use({"results_dir": tmp_path}):
        thread = threading.Thread(target=build, daemon=True)
        thread.start()
        assert entered.wait(5)
        thread.join(5)
        with pytest.raises(FolderInUseError), sole_use({"results_dir": tmp_path}):
            pass
    with in_turn(tmp_path), pytest.raises(FolderInUseError), sole_use({"results_dir": tmp_path}):
        pass


@posix
@pytest.mark.fault("F4")
def test_ctrl_c_ends_the_waiting_and_nothing_else(tmp_path: Path) -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def build() -> None:
        with in_turn(tmp_path):
            has_begun.set()
            may_end.wait(30)

    builder = threading.Thread(target=build)
    builder.start()
    has_begun.wait(30)
    interrupt = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    try:
        interrupt.start()
        with pytest.raises(KeyboardInterrupt), in_turn(tmp_path):
            pass
        with pytest.raises(FolderInUseError), sole_use({"results_dir": tmp_path}):
            pass
    finally:
        interrupt.cancel()
        may_end.set()
        builder.join()


@pytest.mark.fault("B14")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    monkeypatch.setattr(filelock.FileLock, "acquire", failing(OSError(number, "no locks here")))
    with sole_use({"results_dir": tmp_path}), in_turn(tmp_path):
        pass
    assert caplog.text.count("its file system has no locks") == 2


def test_a_folder_that_cannot_be_locked_for_another_reason_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filelock.FileLock, "acquire", failing(PermissionError(errno.EACCES, "somebody else's file")))
    with pytest.raises(StorageError, match=r"in_use\.lock: the folder cannot be locked"), in_turn(tmp_path):
        pass


def failing(error: OSError):
    def acquire(*_: object, **__: object) -> None:
        raise error

    return acquire
