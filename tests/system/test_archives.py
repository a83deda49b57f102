"""An archive that two readers could see in two ways is refused, and so is one that is damaged."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from src.system import archives
from src.system.archives import ArchiveError, check_archive
from src.system.storage import StorageError, read_plain

LOCAL, CENTRAL, END = "<4s5H3I2H", "<4s6H3I5H2I", "<4s4H2IH"
VALUE = {"weights": torch.arange(50, dtype=torch.float32), "name": "text"}


def saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def check(content: bytes) -> None:
    check_archive(io.BytesIO(content), len(content))


def local(name: bytes, data: bytes, *, flags: int = 0, method: int = 0, packed: bytes | None = None) -> bytes:
    packed = data if packed is None else packed
    sizes = zlib.crc32(data), len(packed), len(data)
    return struct.pack(LOCAL, b"PK\3\4", 20, flags, method, 0, 0, *sizes, len(name), 0) + name + packed


def central(
    name: bytes,
    data: bytes,
    start: int,
    *,
    flags: int = 0,
    method: int = 0,
    size: int | None = None,
    attributes: int = 0,
    extra: bytes = b"",
    comment: bytes = b"",
) -> bytes:
    size = len(data) if size is None else size
    lengths = len(name), len(extra), len(comment)
    fields = 20, 20, flags, method, 0, 0, zlib.crc32(data), size, len(data), *lengths, 0, 0, attributes, start
    return struct.pack(CENTRAL, b"PK\1\2", *fields) + name + extra + comment


def end(count: int, length: int, first: int, comment: bytes = b"") -> bytes:
    return struct.pack(END, b"PK\5\6", 0, 0, count, count, length, first, len(comment)) + comment


def end_in_64_bits(count: int, length: int, first: int) -> bytes:
    return struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, first)


def place_of(end_64: int) -> bytes:
    return struct.pack("<4sIQI", b"PK\6\7", 0, end_64, 1)


def archive(entries: Sequence[tuple[bytes, bytes]] = ((b"a/x", b"one"), (b"a/y", b"two")), **odd: Any) -> bytes:
    """Stored entries, with something odd in the directory's record of the last one."""
    body, directory = b"", b""
    for name, data in entries:
        is_last = name == entries[-1][0]
        directory += central(name, data, len(body), **(odd if is_last else {}))
        body += local(name, data, flags=odd.get("flags", 0) if is_last else 0)
    return body + directory + end(len(entries), len(directory), len(body))


def two_directories(harmful: bytes, names: Sequence[str]) -> bytes:
    """An archive whose directory lies behind a second one of the same length, which torch's reader takes.

    zipfile takes what lies before the end, and what it says of places as counted from where the whole begins so.
    """
    source = zipfile.ZipFile(io.BytesIO(harmful))
    body, hidden = b"", b""
    for name in names:
        data = source.read(name)
        deflated = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = deflated.compress(data) + deflated.flush()
        hidden += central(name.encode(), data, len(body), method=8, size=len(packed))
        body += local(name.encode(), data, method=8, packed=packed)
    first, shift, harmless, shown = len(body), 0, b"", b""
    for _ in range(2):  # the second time with the distance between both directories
        harmless, shown = b"", b""
        for name in names:
            shown += central(name.encode(), b"hi", len(body) + len(hidden) + len(harmless) - shift)
            harmless += local(name.encode(), b"hi")
        shift = len(hidden) + len(harmless)
    return body + hidden + harmless + shown + end(len(names), len(shown), first)


def test_what_torch_and_zipfile_write_is_sound() -> None:
    check(saved(VALUE))
    check(archive())
    check(archive([(b"a/empty", b"")]))
    for is_seekable in (True, False):  # without, sizes stand behind each entry
        file = io.BytesIO()
        file.seekable = lambda is_seekable=is_seekable: is_seekable
        with zipfile.ZipFile(file, "w") as written:
            written.writestr("a/data.pkl", b"content")
            written.writestr("a/data/ü", b"more")
        check(file.getvalue())


def test_numbers_in_64_bits_are_understood() -> None:
    """As a file of more than 4 GB has them; torch always writes such an end."""
    body, directory = local(b"a/x", b"one"), central(b"a/x", b"one", 0xFFFFFFFF, extra=struct.pack("<2HQ", 1, 8, 0))
    places = 1, len(directory), len(body)
    check(body + directory + end_in_64_bits(*places) + place_of(len(body + directory)) + end(*places))


@pytest.mark.fault("K3")
def test_a_second_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harmful = saved({"weights": torch.zeros(1_000_000)})
    names = zipfile.ZipFile(io.BytesIO(harmful)).namelist()
    content = two_directories(harmful, names)
    assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None  # it sees no harm
    assert torch.load(io.BytesIO(content), weights_only=True)["weights"].numel() == 1_000_000
    assert len(content) < 20_000
    (tmp_path / "some.pt").write_bytes(content)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(StorageError, match="its directory is not where its end says"):
        read_plain(tmp_path / "some.pt")


GOOD = archive()
BODY, DIRECTORY = GOOD[: GOOD.index(b"PK\1\2")], GOOD[GOOD.index(b"PK\1\2") : GOOD.index(b"PK\5\6")]
AT = len(BODY), len(DIRECTORY)


def with_end_in_64_bits(record: bytes, place: int) -> bytes:
    return BODY + DIRECTORY + record + place_of(place) + end(2, AT[1], AT[0])


ODD = {
    "bytes before": (b"MZ" + GOOD, "not a file of this program"),
    "another archive before": (GOOD + GOOD, "directory is not where"),
    "an entry before that no directory has": (
        local(b"b", b"x") + archive()[: AT[0]] + DIRECTORY + end(2, AT[1], AT[0] + 32),
        "another entry",
    ),
    "bytes behind": (GOOD + b"\0", "end is missing"),
    "a comment": (GOOD[:-2] + b"\4\0evil", "end is missing"),
    "a comment that is the end of another archive": (
        GOOD[:-2] + b"\x16\0" + end(2, AT[1], AT[0]),
        "directory is not where",
    ),
    "bytes before the directory": (
        BODY + b"\0" * 8 + DIRECTORY + end(2, AT[1], AT[0] + 8),
        "claims more bytes or fewer",
    ),
    "bytes behind the directory": (BODY + DIRECTORY + b"\0" * 8 + end(2, AT[1], AT[0]), "directory is not where"),
    "bytes in the directory": (BODY + DIRECTORY + b"\0" * 8 + end(2, AT[1] + 8, AT[0]), "longer than its entries"),
    "an entry more than there is": (BODY + DIRECTORY + end(3, AT[1], AT[0]), "fewer entries"),
    "an entry fewer than there is": (BODY + DIRECTORY + end(1, AT[1], AT[0]), "longer than its entries"),
    "no entries": (b"PK\3\4" + end(0, 0, 4), "directory is not where"),
    "a name twice": (archive([(b"a/x", b"1"), (b"a/x", b"2")]), "repeated names"),
    "a name in capital letters": (archive([(b"a/x", b"1"), (b"A/X", b"2")]), "repeated names"),
    "a name with a NUL": (archive([(b"a/x", b"1"), (b"a/x\0y", b"2")]), "not a name"),
    "a folder by its name": (archive([(b"a/x", b"1"), (b"a/", b"")]), "is a folder"),
    "a folder by its attribute": (archive(attributes=0x10), "is a folder"),
    "an encrypted entry": (archive(flags=1), "encrypted"),
    "a comment of an entry": (archive(comment=b"evil"), "has a comment"),
    "a compressed entry": (archive(method=8), "compressed"),
    "sizes that differ": (archive(size=2), "compressed"),
    "an entry in the place of another": (
        BODY + central(b"a/x", b"one", 0) + central(b"a/y", b"one", 0) + end(2, AT[1], AT[0]),
        "claims more bytes or fewer",
    ),
    "an entry over the one behind it": (
        BODY + central(b"a/x", BODY[33:], 0) + DIRECTORY[len(DIRECTORY) // 2 :] + end(2, AT[1], AT[0]),
        "claims more bytes or fewer",
    ),
    "an entry over the directory": (
        GOOD[: AT[0]] + central(b"a/x", b"one", 0) + central(b"a/y", GOOD[69:], 36) + end(2, AT[1], AT[0]),
        "claims more bytes or fewer",
    ),
    "an entry behind the directory": (
        BODY + central(b"a/x", b"one", 0) + central(b"a/y", b"two", AT[0]) + end(2, AT[1], AT[0]),
        "behind its directory",
    ),
    "another name at its place": (BODY.replace(b"a/y", b"a/z") + DIRECTORY + end(2, AT[1], AT[0]), "another entry"),
    "another content": (GOOD.replace(b"two", b"twa"), "wrong checksum in 'a/y'"),
    "an extra field": (archive(extra=b"FB\1\0Z"), "odd extra field"),
    "a number in 64 bits that needs none": (archive(extra=struct.pack("<2HQ", 1, 8, 0)), "odd extra field"),
    "an end in 64 bits that lies elsewhere": (
        with_end_in_64_bits(end_in_64_bits(2, AT[1], AT[0]), 0),
        "not where it should be",
    ),
    "an end in 64 bits of another directory": (
        with_end_in_64_bits(end_in_64_bits(2, AT[1], 0), sum(AT)),
        "contradict",
    ),
    "an end in 64 bits of other entries": (
        with_end_in_64_bits(end_in_64_bits(1, AT[1], AT[0]), sum(AT)),
        "contradict",
    ),
    "no end in 64 bits": (with_end_in_64_bits(bytes(56), sum(AT)), "is missing"),
}


@pytest.mark.fault("K3")
@pytest.mark.parametrize(("content", "message"), ODD.values(), ids=list(ODD))
def test_what_is_odd_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        check(content)


@pytest.mark.fault("K3")
def test_a_number_of_entries_is_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_ENTRIES", 1)
    with pytest.raises(ArchiveError, match="2 entries, too many"):
        check(archive())


@pytest.mark.fault("B4", "K3")
@pytest.mark.parametrize("change", [lambda old: old ^ 1, lambda old: old ^ 16, lambda old: 255, lambda old: 0])
def test_no_byte_beside_the_content_makes_torch_see_something_else(change: Callable[[int], int]) -> None:
    """Each byte of headers, footers and directory in turn; what is still sound is loaded as it was."""
    content, refused = saved(VALUE), 0
    data = [(entry.header_offset + 30, entry) for entry in zipfile.ZipFile(io.BytesIO(content)).infolist()]
    assert len(data) > 5
    for place, old in enumerate(content):
        if change(old) == old:
            continue
        odd = content[:place] + bytes([change(old)]) + content[place + 1 :]
        try:
            check(odd)
        except ArchiveError:
            refused += 1
            continue
        loaded = torch.load(io.BytesIO(odd), weights_only=True)
        assert loaded["name"] == "text"
        assert torch.equal(loaded["weights"], VALUE["weights"])
    assert refused > 200
