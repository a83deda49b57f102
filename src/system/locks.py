"""A folder or file that one process uses alone: a second one is refused, or waits for its turn.

The lock is the kernel's, so it ends with its process however that dies, and no stale one is left. Who holds it stands
in IN_USE.txt beside it, for people and for the message of the process that was refused.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from src.system.errors import UserError
from src.system.storage import StorageError, cause

log = logging.getLogger(__name__)

LOCK_NAME = ".in_use.lock"
HOLDER_NAME = "IN_USE.txt"
POLL_S = 0.2
_OWN: set[Path] = set()  # folders that `sole_use` keeps for this process
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}  # what file systems without locks answer


class FolderInUseError(UserError):
    """Another process uses the folder or file; the message names it and says what to change."""


@contextlib.contextmanager
def sole_use(folders: Mapping[str, Path]) -> Iterator[None]:
    """Keep these folders for this process, or refuse at once.

    Args:
        folders: setting -> existing folder; settings may name the same one.

    Raises:
        FolderInUseError: another process uses one of them.
        StorageError: a folder cannot be locked, for a reason that is no other process.
    """
    by_path = {path.resolve(): setting for setting, path in folders.items()}
    with contextlib.ExitStack() as stack:
        for folder, setting in by_path.items():
            lock = _new_lock(folder)
            try:
                has_lock = _acquire(lock, folder)
            except Timeout:
                raise FolderInUseError(
                    f"{setting}: {folder} is in use by {_holder(folder)}. Wait until that has ended, or give this run "
                    "folders of its own with --set checkpoint_dir=... --set results_dir=..."
                ) from None
            if has_lock:
                stack.enter_context(_held(lock, folder))
                _OWN.add(folder)
                stack.callback(_OWN.discard, folder)
        yield


@contextlib.contextmanager
def sole_use_of_file(path: Path, option: str) -> Iterator[None]:
    """Keep a file to write for this process, or refuse at once; its folder is there, the file need not be.

    Raises:
        FolderInUseError: another process writes it; the message names the option that it was given to.
        StorageError: as `sole_use`.
    """
    real = path.parent.resolve() / path.name  # two ways to one folder are one lock
    lock = FileLock(real.with_name(f".{path.name}.lock"), fallback_to_soft=False)
    try:
        has_lock = _acquire(lock, path)
    except Timeout:
        raise FolderInUseError(
            f"{path} is being written by another process: wait until that has ended, or give another {option}"
        ) from None
    try:
        yield
    finally:
        if has_lock:
            with contextlib.suppress(OSError):
                Path(lock.lock_file).unlink()  # while it is locked, as that of a folder
            lock.release()


@contextlib.contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Keep an existing folder for this process, after waiting for whoever has it; the log says once that it waits.

    Raises:
        StorageError: the folder cannot be locked, for a reason that is no other process.
    """
    if folder.resolve() in _OWN:  # results and graphs may share a folder; waiting for oneself would never end
        yield
        return
    lock = _new_lock(folder)
    try:
        has_lock = _acquire(lock, folder)
    except Timeout:
        log.info("%s is being written to by %s; waiting until that has ended", folder, _holder(folder))
        has_lock = _acquire(lock, folder, timeout=-1)
    with _held(lock, folder) if has_lock else contextlib.nullcontext():
        yield


def _new_lock(folder: Path) -> FileLock:
    # The soft form, a file that merely exists, would outlive a process that was killed.
    return FileLock(folder / LOCK_NAME, fallback_to_soft=False)


def _acquire(lock: FileLock, folder: Path, timeout: float = 0) -> bool:
    """Whether the lock is held now; False where the file system has none. Timeout when another process has it."""
    try:
        lock.acquire(timeout=timeout, poll_interval=POLL_S)
    except Timeout:
        raise
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise StorageError(f"{lock.lock_file}: the folder cannot be locked: {cause(error)}") from error
        log.warning("%s: its file system has no locks (%s); start no second run that writes to it", folder, error)
        return False
    return True


@contextlib.contextmanager
def _held(lock: FileLock, folder: Path) -> Iterator[None]:
    """Name the holder while the lock is held, then let go and leave nothing behind."""
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    name = folder / HOLDER_NAME
    try:
        with contextlib.suppress(OSError):  # a disk that is full: the lock holds, its holder is merely not named
            name.unlink(missing_ok=True)
            with open(name, "x", encoding="utf-8", errors="backslashreplace") as file:  # "x" follows no link
                file.write(f"process {os.getpid()} on {socket.gethostname()} since {since} ({shlex.join(sys.argv)})\n")
        yield
    finally:
        # The lock file goes while it is locked: a process that has opened it sees that it has no name any more.
        for path in (name, folder / LOCK_NAME):
            with contextlib.suppress(OSError):
                path.unlink()
        lock.release()


def _holder(folder: Path) -> str:
    """What the holder wrote of itself, as one printable line."""
    try:
        with open(folder / HOLDER_NAME, encoding="utf-8", errors="replace") as file:
            line = file.readline(500).strip()
    except OSError:  # it has just come, or just gone
        line = ""
    return "".join(letter if letter.isprintable() else "?" for letter in line) or "another process"
