"""Plain dictionaries of tensors, texts and tables <-> files that are whole or not there.

`torch.load` does not verify the zip's checksums (a flipped bit loads as other weights), expands compressed
entries a thousandfold and builds tensors larger than the file. All of that is checked here before anything is
used, and only tensors and plain values are read or written.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import os
import pickle
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import NoneType
from typing import IO, Any

import torch
from torch import Tensor

from src.system.archives import ArchiveError, verified
from src.system.errors import UserError

log = logging.getLogger(__name__)

MAX_DEPTH = 64
TEMPORARY_SUFFIX = ".tmp"
WRITE_BUFFER = 1 << 20  # bytes; a network disk can take its time for each write, and tensors are many small ones
# The place before a sign that begins a formula, and before a tab at the beginning; blanks include those without width.
_SIGNS = "=+\\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u207c\u207a\u207b\u2212"
_FORMULA = re.compile(rf"(?:^|(?<=[;\t\n|]))(?=[\s\x00-\x1f\u200b-\u200f\u2060\ufeff]*[{_SIGNS}])|^(?=\t)")
PLAIN_VALUES = (NoneType, bool, int, float, str, bytes)


class StorageError(UserError):
    """A file cannot be written, read or trusted; the message names the file and the cause."""


def write_plain(path: Path, value: dict[str, Any], *, before_replace: Callable[[], None] | None = None) -> None:
    """Write tensors and plain values; at every instant, power cuts included, the file at `path` is whole.

    Args:
        path: Where to, in an existing folder. A failed write leaves what was there.
        value: Tensors on any device, numbers, texts, lists, tuples and dictionaries.
        before_replace: Called when the new file is complete and the old one still lies at `path`.

    Raises:
        StorageError: The value holds something that is not plain, or the disk does not take the file.
    """
    plain = to_plain(value)

    def write(file: IO[bytes]) -> None:
        torch.save(plain, file)

    def complete(temporary: Path) -> None:
        with open(temporary, "rb") as file:
            verified(file)
        if before_replace:
            before_replace()

    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(plain))
    _replace(path, write, complete, size)


def to_plain(value: Any) -> Any:
    """A copy of dicts and lists with tensors detached and parameters as tensors: what read_plain gives back.

    Raises:
        StorageError: Something in it is not plain; the message says where.
    """
    return _plain(value, "state", MAX_DEPTH)


def read_plain(path: Path) -> Any:
    """Read such a file onto the CPU; no file, however made, runs code or fills memory beyond twice its size.

    Raises:
        StorageError: Not a file, damaged, or not plain data.
    """
    try:
        with open(path, "rb") as file:
            value = torch.load(verified(file), map_location="cpu", weights_only=True)
        _check_loaded(value)
    except (ArchiveError, StorageError) as error:
        raise StorageError(f"{path}: {error}") from error
    except pickle.UnpicklingError as error:
        raise StorageError(f"{path}: refused: {_unsafe_names(path) or cause(error)}") from error
    except Exception as error:  # damage shows as any type: ValueError, EOFError, KeyError, RuntimeError ...
        raise StorageError(f"{path}: cannot be read: {cause(error)}") from error
    return value


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all; the folder is made if it is not there.

    Raises:
        StorageError: The disk does not take the file.
    """
    data = text.encode("utf-8", "surrogateescape")  # a path that the locale could not decode: its own bytes
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path.parent}: no such folder can be made: {cause(error)}") from error
    _replace(path, lambda file: file.write(data), None, len(data))


def write_stream(path: Path, write: Callable[[IO[bytes]], object], size: int) -> None:
    """What `write` writes into an open file, about `size` bytes, is at `path` wholly or not at all.

    Raises:
        StorageError: the disk does not take it; what was there stays.
    """
    _replace(path, write, None, size)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, like write_text; NaN and infinity have no place in it (ValueError)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def prepare_folder(path: Path) -> None:
    """Make a folder, and prove that files can be written into it before any work is done.

    Raises:
        StorageError: it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = temporary_path(path / "probe")
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise StorageError(f"{path}: cannot be used as a folder to write to: {cause(error)}") from error


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table like write_text. Cells that a spreadsheet would run as a formula get a leading quote."""
    write_text(path, "".join(map(csv_line, [header, *rows])))


def csv_line(row: Iterable[object]) -> str:
    """One line of such a table with its end, for tables that are written line by line."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(map(_safe_cell, row))
    return text.getvalue()


def remove_temporaries(folder: Path, name_pattern: str) -> None:
    """Remove what interrupted writes left behind; only one run at a time may use the folder."""
    for stray in folder.glob(f".{name_pattern}.*{TEMPORARY_SUFFIX}"):
        with contextlib.suppress(OSError):  # untidy, not wrong
            stray.unlink()


def temporary_path(path: Path) -> Path:
    """A name beside `path` that nobody else uses or can guess."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")


def tensors_in(part: Any) -> Iterator[Tensor]:
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, dict | list | tuple):
        for content in part.values() if isinstance(part, dict) else part:
            yield from tensors_in(content)


def cause(error: Exception) -> str:
    """One printable line: parts of a damaged file can end up in an exception's text."""
    line = (str(error).strip().splitlines() or ["no reason given"])[0]
    return f"{type(error).__name__}: {line[:200]!a}"


def _replace(
    path: Path, write: Callable[[IO[bytes]], object], complete: Callable[[Path], None] | None, size: int
) -> None:
    """Write a temporary file beside `path`, bring it to the disk, and put it in the place of `path`."""
    temporary = temporary_path(path)
    try:
        # "x" refuses an existing file or link and honours the umask.
        with open(temporary, "xb", buffering=WRITE_BUFFER) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if complete:
            complete(temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError, ArchiveError) as error:  # torch may report a full disk as RuntimeError
        raise StorageError(f"{path}: not saved (needs {size / 1e6:.1f} MB): {cause(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _safe_cell(cell: object) -> object:
    """A text with a quote before each sign that begins a formula.

    That is its first character, be it behind blanks, and one behind what ends a cell for a spreadsheet that takes
    semicolons or tabs for commas. Wide forms of the signs count, too: some programs make the plain ones of them.
    """
    if not isinstance(cell, str):
        return cell
    return _FORMULA.sub("'", cell.replace("\r", " "))  # the csv module does not quote a carriage return


def _plain(value: Any, where: str, depth: int) -> Any:
    """A copy of dicts and lists with tensors detached; what `read_plain` would refuse raises."""
    kind = type(value)  # exact types: np.float64 is a float, and torch's version a str, that cannot be loaded
    if kind in PLAIN_VALUES:
        return value
    if depth == 0:
        raise StorageError(f"{where} is nested too deeply")
    if isinstance(value, Tensor):
        return _plain_tensor(value, where)
    if kind in (dict, OrderedDict):
        for key in value:
            if type(key) not in (str, int):
                raise StorageError(f"{where} has the key {key!r} ({type(key).__name__}); use str or int")
        return {key: _plain(content, f"{where}[{key!r}]", depth - 1) for key, content in value.items()}
    if kind in (list, tuple):
        return kind(_plain(content, f"{where}[{i}]", depth - 1) for i, content in enumerate(value))
    raise StorageError(
        f"{where} is a {kind.__module__}.{kind.__qualname__}; such a file holds tensors, str, int, float, "
        "bool, None, bytes, list, tuple and dict only"
    )


def _plain_tensor(tensor: Tensor, where: str) -> Tensor:
    plain = tensor.detach()
    if type(plain) is not Tensor or plain.layout != torch.strided or plain.is_meta:
        raise StorageError(f"{where} is not an ordinary dense tensor")
    # torch.save writes the whole storage, so a view of one row would cost the file of the whole matrix.
    whole = plain.untyped_storage().nbytes() == plain.numel() * plain.element_size()
    return plain if whole else plain.clone(memory_format=torch.contiguous_format)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable. The file itself is already safe, so a failure is no reason to stop."""
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        log.debug("%s: the folder could not be written through to the disk: %s", folder, error)


def _check_loaded(state: Any) -> None:
    """Only plain values, honest tensors, no container twice (a cycle, or lists that unfold without end)."""
    seen: set[int] = set()
    pending = [(state, 0)]
    while pending:
        value, depth = pending.pop()
        kind = type(value)
        if kind in PLAIN_VALUES:
            continue
        if kind is Tensor:
            _check_tensor(value)
            continue
        if kind not in (dict, list, tuple):
            raise StorageError(f"refused: it holds a {kind.__name__}, which is not plain data")
        if value and (id(value) in seen or depth > MAX_DEPTH):
            raise StorageError("refused: a container is stored twice or nested too deeply")
        seen.add(id(value))
        if kind is dict and any(type(key) not in (str, int) for key in value):
            raise StorageError("refused: a key is neither text nor a whole number")
        pending.extend((content, depth + 1) for content in (value.values() if kind is dict else value))


def _check_tensor(tensor: Tensor) -> None:
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise StorageError("refused: it holds a tensor that is not ordinary and dense")
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise StorageError(f"refused: a tensor claims the shape {tuple(tensor.shape)} without the data")


def _unsafe_names(path: Path) -> str:
    """What code the file asks for. Its pickle is only disassembled, never run."""
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a pickle that confuses the disassembler; the caller then shows the loader's message
        return ""
    return f"it asks to run {', '.join(names[:10])!a}" if names else ""
