"""A screening cut into parts, one for each job of an array, and their files -> one output in the order of the input.

Part 3 of 16 has the poses 3, 19, 35 and so on, and writes scores.3-of-16.csv where --output is scores.csv. All parts
are scored with the same command but for their number.
"""

from __future__ import annotations

import gzip
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TypeVar

from src.scoring.score_files import state_path
from src.system.locks import sole_use_of_file
from src.system.storage import StorageError, write_stream
from src.system.terminal import counted

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    number: int  # from 1
    count: int

    @classmethod
    def read(cls, text: str) -> Shard:
        """'3/16' -> part 3 of 16. Raises ValueError: it is no such text."""
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"{text!r} must be a number and how many there are, such as 3/16")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, poses: Iterable[T]) -> Iterator[T]:
        return islice(poses, self.number - 1, None, self.count)

    def path(self, output: Path) -> Path:
        stem, ending = _named(output)
        return output.with_name(f"{stem}.{self.number}-of-{self.count}{ending}")


def merge_shards(output: Path, *, overwrite: bool = False) -> int:
    """Put the rows of all parts into one file, which is whole or not there, and leave the parts as they are.

    Returns:
        How many rows there are.

    Raises:
        StorageError: there is such a file already, a part is missing or not finished, or they do not belong together.
    """
    if output.exists() and not overwrite:
        raise StorageError(f"{output} exists: give another --output, or add --overwrite")
    paths, kind = _parts(output), _named(output)[1].removesuffix(".gz")
    num_rows = sum(1 for _ in _rows_in_turn(paths, kind))  # and they belong together
    with ExitStack() as stack:
        head = stack.enter_context(_opened(paths[0])).readline() if kind != ".sdf" else b""

    def write(file: IO[bytes]) -> None:
        is_packed = output.suffix == ".gz"
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) if is_packed else nullcontext(file) as to:
            to.write(head.rstrip(b"\n") if kind == ".json" else head)
            for number, row in enumerate(_rows_in_turn(paths, kind)):
                to.write((b",\n" if number else b"\n") + row if kind == ".json" else row)
            to.write(b"\n]\n" if kind == ".json" else b"")

    with sole_use_of_file(output, "--output"):
        write_stream(output, write, sum(path.stat().st_size for path in paths))
    log.info("%s in %s; its parts can be deleted now", counted(num_rows, "row"), output)
    return num_rows


def _named(output: Path) -> tuple[str, str]:
    """scores.csv.gz -> scores, .csv.gz"""
    stem, ending = re.fullmatch(r"(.*?)(\.[a-z]+(?:\.gz)?)", output.name).groups()
    return stem, ending


def _parts(output: Path) -> list[Path]:
    """The files of all parts, by number."""
    stem, ending = _named(output)
    pattern = re.compile(rf"{re.escape(stem)}\.(\d+)-of-(\d+){re.escape(ending)}", re.ASCII)
    found = {}
    for path in output.parent.iterdir():
        if match := pattern.fullmatch(path.name):
            found[Shard(int(match[1]), int(match[2]))] = path
    counts = {shard.count for shard in found}
    if len(counts) != 1:
        what = f"parts of {' and of '.join(map(str, sorted(counts)))}" if counts else "no parts"
        raise StorageError(f"there are {what} beside {output}: all of one screening must lie there")
    shards = [Shard(number, *counts) for number in range(1, max(counts) + 1)]
    bad = [f"{shard.path(output)} is missing" for shard in shards if shard not in found]
    bad += [f"{path} is not finished" for path in found.values() if state_path(path).exists()]
    if bad:
        raise StorageError("; ".join(bad[:5]) + ": give the command with --shard again for these")
    return [found[shard] for shard in shards]


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")  # type: ignore[return-value]


def _rows_in_turn(paths: list[Path], kind: str) -> Iterator[bytes]:
    """One row of each part after the other, as the bytes that they are.

    Raises:
        StorageError: the parts are not of one screening.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(_opened(path)) for path in paths]
        heads = [file.readline() for file in files] if kind != ".sdf" else [b""]
        if odd := [path for path, head in zip(paths, heads, strict=False) if head != heads[0]]:
            raise StorageError(f"{odd[0]} has other columns than {paths[0]}: score all parts with one command")
        parts = [_rows(file, kind) for file in files]
        is_last = False
        while not is_last:
            rows = [next(part, None) for part in parts]
            num_rows = rows.index(None) if None in rows else len(rows)
            is_last = num_rows < len(rows)
            more = [path for path, row in zip(paths[num_rows:], rows[num_rows:], strict=True) if row is not None]
            more += [path for path, part in zip(paths, parts, strict=True) if is_last and next(part, None) is not None]
            if more:
                raise StorageError(f"{more[0]} has too many rows for its number: it is of another screening")
            yield from rows[:num_rows]  # type: ignore[misc]


def _rows(file: IO[bytes], kind: str) -> Iterator[bytes]:
    """What comes after the first line; an SDF has none."""
    row = b""
    for line in file:
        if kind == ".json":
            if line.startswith(b"{"):
                yield line.rstrip(b"\n").removesuffix(b",")
            continue
        row += line
        # Of a CSV a cell may have several lines, and then its quotes are not closed.
        if line.rstrip(b"\n") == b"$$$$" if kind == ".sdf" else row.count(b'"') % 2 == 0:
            yield row
            row = b""
