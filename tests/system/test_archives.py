"""Of an archive torch is given what zipfile finds in it and no more; one that is damaged or compressed is refused."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from src.system import archives
from src.system.archives import ArchiveError, verified

LOCAL, CENTRAL, END = "<4s5H3I2H", "<4s6H3I5H2I", "<4s4H2IH"
VALUE = {"weights": torch.arange(50, dtype=torch.float32), "name": "text"}


def saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def entries_of(content: bytes) -> dict[str, bytes]:
    """What torch is given of an archive."""
    with zipfile.ZipFile(verified(io.BytesIO(content))) as own:
        return {name: own.read(name) for name in own.namelist()}


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
    assert torch.load(verified(io.BytesIO(saved(VALUE))), weights_only=True)["name"] == "text"
    assert entries_of(archive()) == {"a/x": b"one", "a/y": b"two"}
    assert entries_of(archive([(b"a/empty", b"")])) == {"a/empty": b""}
    for is_seekable in (True, False):  # without, sizes stand behind each entry
        file = io.BytesIO()
        file.seekable = lambda is_seekable=is_seekable: is_seekable
        with zipfile.ZipFile(file, "w") as written:
            written.writestr("a/data.pkl", b"content")
            written.writestr("a/data/ü", b"more")
        assert entries_of(file.getvalue()) == {"a/data.pkl": b"content", "a/data/ü": b"more"}


@pytest.mark.fault("K3")
def test_torch_never_sees_a_second_directory() -> None:
    harmful = saved({"weights": torch.zeros(1_000_000)})
    names = zipfile.ZipFile(io.BytesIO(harmful)).namelist()
    content = two_directories(harmful, names)
    assert torch.load(io.BytesIO(content), weights_only=True)["weights"].numel() == 1_000_000
    assert len(content) < 20_000
    assert entries_of(content) == dict.fromkeys(names, b"hi")


GOOD = archive()
AT = GOOD.index(b"PK\1\2")
ODD = {
    "bytes before": (b"MZ" + GOOD, "not a file of this program"),
    "no end": (GOOD[:-4], "cannot be read: its end is missing"),
    "a name twice": (archive([(b"a/x", b"1"), (b"a/x", b"2")]), "repeated names"),
    "a name in capital letters": (archive([(b"a/x", b"1"), (b"A/X", b"2")]), "repeated names"),
    "a folder": (archive([(b"a/x", b"1"), (b"a/", b"")]), "has folders"),
    "an encrypted entry": (archive(flags=1), "encrypted"),
    "a compressed entry": (archive(method=8), "compressed"),
    "sizes that differ": (archive(size=2), "compressed"),
    "an entry over the whole archive": (
        GOOD[:AT] + central(b"a/x", GOOD, 0) + GOOD[GOOD.rindex(b"PK\1\2") :],
        "claims more bytes",
    ),
    "another name at its place": (GOOD[:AT].replace(b"a/y", b"a/z") + GOOD[AT:], "File name in directory"),
    "another content": (GOOD.replace(b"two", b"twa"), "wrong checksum in 'a/y'"),
}


@pytest.mark.fault("K3")
@pytest.mark.parametrize(("content", "message"), ODD.values(), ids=list(ODD))
def test_what_is_odd_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        verified(io.BytesIO(content))


@pytest.mark.fault("K3")
def test_a_number_of_entries_is_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_ENTRIES", 1)
    with pytest.raises(ArchiveError, match="2 entries, too many"):
        verified(io.BytesIO(archive()))


@pytest.mark.fault("B4", "K3")
@pytest.mark.parametrize("change", [lambda old: old ^ 1, lambda old: old ^ 16, lambda old: 255, lambda old: 0])
def test_no_byte_beside_the_content_makes_torch_see_something_else(change: Callable[[int], int]) -> None:
    """Each byte of headers, footers and directory in turn; what is still sound is what it was."""
    content, refused = saved(VALUE), 0
    before = entries_of(content)
    assert len(before) > 5
    for place, old in enumerate(content):
        if change(old) == old:
            continue
        odd = content[:place] + bytes([change(old)]) + content[place + 1 :]
        try:
            after = entries_of(odd)
        except ArchiveError:
            refused += 1
            continue
        assert [after[name] for name in after if name in before] == [before[name] for name in before if name in after]
    assert refused > 200
