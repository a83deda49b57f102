"""Rows of predictions -> a CSV, JSON or SDF file that grows row by row, and goes on where a killed program stopped.

Beside an output that is not finished lies <output>.state.json: what is scored with which models, how many rows are
written, and in how many bytes; it is there before the output is. What comes after those bytes is cut off before the
next row is written, so that no row is there twice and none by half. The parts of a .gz file between two such moments
are members of their own, as gzip allows (RFC 1952).
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import secrets
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from src.chemistry.atoms import STANDARD_INPUT
from src.scoring.poses import Pose
from src.scoring.row_formats import CsvRows, row_format
from src.system.locks import sole_use_of_file
from src.system.storage import StorageError, cause, write_json
from src.system.terminal import printable

SAVE_EVERY_S = 5.0  # so much work is lost at most
MAX_PENDING = 1000  # rows
_COUNTS = ("rows", "scored", "bytes")  # of a state


def state_path(output: Path) -> Path:
    """Of the file that lies beside an output which is not finished."""
    return output.with_name(f"{output.name}.state.json")


def molecules_path(output: Path) -> Path:
    """Of the SDF with the modelled poses of a table: scores_poses.sdf for scores.csv.gz."""
    return output.with_name(f"{output.name.removesuffix('.gz').rpartition('.')[0]}_poses.sdf")


def is_unfinished(output: Path | None) -> bool:
    return output not in (None, STANDARD_INPUT) and output.exists() and state_path(output).exists()


def require_apart(output: Path, inputs: Iterable[Path]) -> None:
    """
    Raises:
        StorageError: the output is one of the inputs, be it by a link.
    """
    if not output.exists():
        return
    for path in inputs:
        with contextlib.suppress(OSError):  # an input that is not there is another fault
            if path != STANDARD_INPUT and output.samefile(path):
                raise StorageError(f"{output} is the input {path} too: give another file")


class ScoreFile:
    """An output that can be gone on with; use it as a context. Until that ends no other process writes the file."""

    def __init__(
        self,
        path: Path,
        work: Mapping[str, Any],
        columns: Sequence[str],
        *,
        overwrite: bool = False,
        goes_on: bool = True,
        molecules: Path | None = None,
    ):
        """
        Args:
            path: in a folder that is there.
            work: what is scored and how, as plain values; rows of other work are not added to a file.
            overwrite: start anew whatever lies at path.
            goes_on: with an unfinished file of the same work; else that is started anew, too.
            molecules: an SDF that gets every row with its molecule, for an output that has no place for it.

        Raises:
            StorageError: there is such a file already, of other work or finished.
            FolderInUseError: another process writes it.
        """
        self.path, self.overwrite = path, overwrite
        self.work = json.loads(json.dumps({**work, "columns": list(columns)}))
        self.state_path = state_path(path)
        self._format = row_format(path, columns)
        self._file: IO[bytes] | None = None  # until there is something to write
        self._pending: list[str] = []
        self._saved_at = time.monotonic()
        with contextlib.ExitStack() as held:
            held.enter_context(sole_use_of_file(path, "--output"))
            before = {} if overwrite else self._earlier_state()
            self._held = held.pop_all()  # nothing above has failed
        if before and not goes_on:
            before, self.overwrite = {}, True
        self.num_rows, self.num_scored, self._num_bytes = (before.get(name, 0) for name in _COUNTS)
        self._is_begun = before.get("is_begun", bool(before))
        self.goes_on = bool(before)
        self._beside: ScoreFile | None = None
        if molecules:
            try:
                self._beside = ScoreFile(molecules, work, columns, overwrite=overwrite, goes_on=goes_on)
                if self._beside.num_rows < self.num_rows:
                    raise StorageError(f"{molecules} has fewer rows than {path}: add --overwrite to start anew")
            except BaseException:  # an interrupt too must let go of the lock
                self._held.close()
                raise

    def __enter__(self) -> ScoreFile:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        with self._held, self._beside or contextlib.nullcontext():
            if self._beside and kind is None and self._beside._file:
                self._beside.save()  # it is never behind this file
            self._close(kind)

    def _close(self, kind: type | None) -> None:
        """Write what is left. After a fault it is there to be read, but the run that goes on makes it again: an
        interrupt can come between any two steps of `add`."""
        if self._file is None and kind is None and self.goes_on:
            self._open()  # all rows are there, but not the end of the file
        if self._file is None:
            return
        self._pending.append(self._format.tail)
        try:
            with self._file:
                self._write()
        except OSError as error:
            if kind is None:
                raise StorageError(f"{self.path}: cannot be written: {cause(error)}") from error
        if kind is None:
            self.state_path.unlink(missing_ok=True)

    def begin(self) -> None:
        """Let the file be there even if it gets no rows."""
        if self._file is None:
            self._open()

    def add(self, row: Mapping[str, object], pose: Pose, *, scored: bool, is_lost: bool = False) -> None:
        """Append a row; every few seconds what is there is made safe.

        Args:
            is_lost: reading the pose ended a process, and could end this one.

        Raises:
            StorageError: the disk does not take it.
        """
        if self._beside and self._beside.num_rows == self.num_rows:  # else it is ahead since a kill
            self._beside.add(row, pose, scored=scored, is_lost=is_lost)
        self.begin()
        if is_lost and pose.record and pose.record.kind == "mol2":  # whose atoms an SDF can have only when it is read
            pose = replace(pose, record=None)
        self._pending.append(self._format.row(row, pose, first=self.num_rows == 0, scored=scored))
        self.num_rows += 1
        self.num_scored += scored
        if time.monotonic() - self._saved_at > SAVE_EVERY_S or len(self._pending) > MAX_PENDING:
            self.save()

    def save(self) -> None:
        """Bring the rows so far to the disk, then the state that says that they are there."""
        if self._beside and self._beside._file:
            self._beside.save()
        try:
            self._write()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be written: {cause(error)}") from error
        self._write_state()
        self._saved_at = time.monotonic()

    def _write_state(self, *, is_begun: bool = True) -> None:
        counts = dict(zip(_COUNTS, (self.num_rows, self.num_scored, self._num_bytes), strict=True))
        write_json(self.state_path, {**counts, "is_begun": is_begun, "work": self.work})

    def _open(self) -> None:
        try:
            if not self.goes_on and (self.overwrite or self.path.is_symlink()):
                self.path.unlink(missing_ok=True)  # of a link what it points to is not ours
            if not self.goes_on:
                self._write_state(is_begun=False)  # from here on a kill leaves nothing that the same command refuses
            # Closed by __exit__.
            self._file = open(self.path, "r+b" if self.goes_on else "xb")  # noqa: SIM115
        except OSError as error:
            if not self.goes_on:
                self.state_path.unlink(missing_ok=True)
            raise StorageError(f"{self.path}: cannot be written: {cause(error)}") from error
        if not self._is_begun:
            self._pending.append(self._format.head)
            self.save()

    def _write(self) -> None:
        data = self._packed("".join(self._pending))
        self._file.seek(self._num_bytes)
        self._file.truncate()
        self._file.write(data)
        self._file.flush()
        self._num_bytes += len(data)
        self._pending = []

    def _packed(self, text: str) -> bytes:
        data = text.encode("utf-8", "surrogateescape")
        return gzip.compress(data, mtime=0) if self.path.suffix == ".gz" else data

    def _earlier_state(self) -> dict[str, Any]:
        """The counts of an unfinished file of the same work; nothing where there is no file."""
        if not self.path.exists():
            return {}
        state = _read_state(self.state_path)
        if state is None:
            raise StorageError(f"{self.path} exists: give another --output, or add --overwrite")
        if changed := [name for name in self.work if state["work"].get(name) != self.work[name]]:
            raise StorageError(
                f"{self.path} is not finished and belongs to other work ({', '.join(changed)} changed): "
                "give another --output, or add --overwrite"
            )
        if self.path.stat().st_size < state["bytes"]:
            raise StorageError(f"{self.path} is shorter than it was: give another --output, or add --overwrite")
        if not state.get("is_begun", True) and not self._has_head_alone():
            raise StorageError(f"{self.path} exists, and is not ours: give another --output, or add --overwrite")
        return state

    def _has_head_alone(self) -> bool:
        """Whether the file is what a run leaves that is killed before its first row is safe."""
        head = self._packed(self._format.head)
        with open(self.path, "rb") as file:
            return head.startswith(file.read(len(head) + 1))


class ScoreStream:
    """The rows as CSV on standard output."""

    def __init__(self, columns: Sequence[str]):
        self._format = CsvRows(columns)
        self._head = self._format.head
        self.num_rows = 0

    def __enter__(self) -> ScoreStream:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def add(self, row: Mapping[str, object], pose: Pose, *, scored: bool, is_lost: bool = False) -> None:
        """Write a row. Raises BrokenPipeError: nobody reads any more."""
        sys.stdout.write(printable(self._head + self._format.row(row, pose, first=False, scored=scored)))
        sys.stdout.flush()
        self._head = ""
        self.num_rows += 1


def signature(paths: Iterable[Path], *, content: bool = False) -> list[Any]:
    """What tells files from others and from what they were: number, and a digest of names, sizes and times.

    Args:
        content: of what is in them instead of their times, for a few small files.
    """
    digest, count = hashlib.sha256(), 0
    for path in paths:
        count += 1
        if path == STANDARD_INPUT:  # nobody can tell whether the same comes again
            digest.update(secrets.token_bytes(8))
            continue
        digest.update(os.fsencode(path.absolute()) + b"\0")
        try:
            stat = path.stat()
            digest.update(path.read_bytes() if content else f"{stat.st_size} {stat.st_mtime_ns}".encode())
        except OSError:  # a file that is not there has a row that says so
            digest.update(b"-")
    return [count, digest.hexdigest()[:16]]


def _read_state(path: Path) -> dict[str, Any] | None:
    """None where there is no state, or something that anybody may have written."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    sound = isinstance(state, dict) and all(type(state.get(name)) is int and state[name] >= 0 for name in _COUNTS)
    return state if sound and isinstance(state.get("work"), dict) else None
