"""A zip archive -> whether it is whole, uncompressed, and can be read in one way only.

Python's zipfile, which could verify it, and the reader of torch find the directory of a crafted archive in different
places. So its bytes must be these and no others: the entries, one behind the other, the one directory of all of them,
and the end that says where it lies. Formats: APPNOTE 6.3.10, https://support.pkware.com/pkzip/appnote.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple

from src.system.errors import UserError

MAX_ENTRIES = 100_000  # a storage of a tensor is one entry
PIECE_BYTES = 1 << 20
MAGIC = b"PK\x03\x04"

_LOCAL = struct.Struct("<4s5H3I2H")  # 4.3.7
_CENTRAL = struct.Struct("<4s6H3I5H2I")  # 4.3.12
_END = struct.Struct("<4s4H2IH")  # 4.3.16
_END_64 = struct.Struct("<4sQ2H2I4Q")  # 4.3.14
_PLACE_OF_END_64 = struct.Struct("<4sIQI")  # 4.3.15
_TOO_LONG = 0xFFFFFFFF  # stands for a number that needs 64 bits and stands elsewhere
_LONGEST_FOOTER = 24  # bytes
_HAS_FOOTER, _IS_UTF8 = 0x0008, 0x0800  # flags; all others mean encryption, patches or compression
_IS_FOLDER = 0x10  # attribute of DOS; torch reads nothing for such an entry and takes what was in memory before


class ArchiveError(UserError):
    """The archive is damaged or made to deceive; the message says how."""


class _Entry(NamedTuple):
    name: str  # one character a byte
    flags: int
    checksum: int
    size: int
    start: int  # of its local header


def check_archive(file: IO[bytes], size: int) -> None:
    """Refuse what another reader could see otherwise, and what is damaged.

    Args:
        file: open for reading; read from any place.
        size: bytes of the file.

    Raises:
        ArchiveError: naming what is wrong.
    """
    if _read(file, 0, len(MAGIC)) != MAGIC:
        raise ArchiveError(f"not a file of this program (a zip archive is expected; this has {size} bytes)")
    first, last, count = _directory(file, size)
    if count > MAX_ENTRIES:
        raise ArchiveError(f"refused: {count} entries, too many")
    entries = sorted(_entries(_read(file, first, last - first), count), key=lambda entry: entry.start)
    if len({entry.name.lower() for entry in entries}) != count:  # torch's reader takes A for a
        raise ArchiveError(f"refused: {count} entries, some with repeated names")
    if entries[0].start != 0 or entries[-1].start >= first:
        raise ArchiveError("refused: something lies before its first entry, or an entry behind its directory")
    for entry, end in zip(entries, [*(entry.start for entry in entries[1:]), first], strict=True):
        _check_entry(file, entry, end)


def _directory(file: IO[bytes], size: int) -> tuple[int, int, int]:
    """First byte of the directory, the byte behind it, and its number of entries."""
    last = size - _END.size
    end = _fields(_END, _read(file, last, _END.size), b"PK\x05\x06", "its end is missing")
    *disks, here, count, length, first, comment = end
    if comment or any(disks) or here != count:
        raise ArchiveError("refused: it has a comment, or parts in other files")
    place = _read(file, last - _PLACE_OF_END_64.size, _PLACE_OF_END_64.size)
    if place.startswith(b"PK\x06\x07"):
        last -= _PLACE_OF_END_64.size + _END_64.size
        if _PLACE_OF_END_64.unpack(place)[1:] != (0, last, 1):
            raise ArchiveError("refused: its end in 64 bits is not where it should be")
        here, count, length, first = _end_in_64_bits(_read(file, last, _END_64.size), end)
    if first + length != last or not count:
        raise ArchiveError("refused: its directory is not where its end says")
    return first, last, count


def _end_in_64_bits(data: bytes, short: tuple) -> list[int]:
    """Entries here and in all, bytes and place of the directory; they contradict nothing in the short end."""
    length, _, _, disk, other, *numbers = _fields(_END_64, data, b"PK\x06\x06", "its end in 64 bits is missing")
    most = (0xFFFF, 0xFFFF, _TOO_LONG, _TOO_LONG)  # stands for a number that is too long
    same = [min(number, limit) for number, limit in zip(numbers, most, strict=True)] == list(short[2:6])
    if length != _END_64.size - 12 or disk or other or numbers[0] != numbers[1] or not same:
        raise ArchiveError("refused: its two ends contradict each other")
    return numbers


def _entries(directory: bytes, count: int) -> Iterator[_Entry]:
    place = 0
    for _ in range(count):
        header = directory[place : place + _CENTRAL.size]
        fields = _fields(_CENTRAL, header, b"PK\x01\x02", "its directory has fewer entries than its end says")
        _, _, flags, method, _, _, checksum, packed, size, *lengths, disk, _, attributes, start = fields
        name_end = place + _CENTRAL.size + lengths[0]
        name = directory[place + _CENTRAL.size : name_end].decode("latin-1")
        extra = directory[name_end : name_end + lengths[1]]
        place = name_end + lengths[1] + lengths[2]
        if flags & ~(_HAS_FOOTER | _IS_UTF8) or lengths[2] or disk:
            raise ArchiveError(f"refused: {name!a} is encrypted, has a comment or lies in another file")
        if not name or "\0" in name or name.endswith(("/", "\\")) or attributes & _IS_FOLDER:
            raise ArchiveError(f"refused: {name!a} is a folder or not a name")
        size, packed, start = _in_full(extra, size, packed, start)
        if method or packed != size:
            raise ArchiveError("refused: its entries are compressed, which this program never does")
        yield _Entry(name, flags, checksum, size, start)
    if place != len(directory):
        raise ArchiveError("refused: its directory is longer than its entries")


def _in_full(extra: bytes, *numbers: int) -> list[int]:
    """The numbers, those that are too long from the extra field (4.5.3), which holds nothing else."""
    form = struct.Struct(f"<2H{numbers.count(_TOO_LONG)}Q")
    kind, length, *long = form.unpack(extra) if len(extra) == form.size else (0, 0)
    if bool(extra) != (_TOO_LONG in numbers) or (extra and (kind, length) != (1, form.size - 4)):
        raise ArchiveError("refused: its directory has an odd extra field")
    in_full = iter(long)
    return [next(in_full) if number == _TOO_LONG else number for number in numbers]


def _check_entry(file: IO[bytes], entry: _Entry, end: int) -> None:
    """Whether header, name, padding, content and footer of an entry fill its place, and the content is whole."""
    header = _read(file, entry.start, _LOCAL.size)
    fields = _fields(_LOCAL, header, MAGIC, f"no entry lies where the directory has {entry.name!a}")
    _, flags, method, *_, name_length, extra_length = fields
    name = _read(file, entry.start + _LOCAL.size, name_length).decode("latin-1")
    if (flags, method, name) != (entry.flags, 0, entry.name):
        raise ArchiveError(f"refused: {entry.name!a} is another entry than the directory says")
    first = entry.start + _LOCAL.size + name_length + extra_length
    last = first + entry.size
    if last > end or end - last > _LONGEST_FOOTER or _read(file, last, end - last) not in _footers(entry):
        raise ArchiveError(f"refused: {entry.name!a} claims more bytes or fewer than it has")
    checksum = 0
    for place in range(first, last, PIECE_BYTES):
        checksum = zlib.crc32(_read(file, place, min(PIECE_BYTES, last - place)), checksum)
    if checksum != entry.checksum:
        raise ArchiveError(f"damaged: wrong checksum in {entry.name!a}")


def _footers(entry: _Entry) -> list[bytes]:
    """What may stand behind the content (4.3.9): nothing, or checksum and both sizes, these in 32 or in 64 bits."""
    if not entry.flags & _HAS_FOOTER:
        return [b""]
    forms = ["<4sI2Q", *["<4s3I"] * (entry.size <= _TOO_LONG)]
    return [struct.pack(form, b"PK\x07\x08", entry.checksum, entry.size, entry.size) for form in forms]


def _fields(form: struct.Struct, data: bytes, mark: bytes, fault: str) -> tuple:
    """What stands behind the mark of a part of the archive."""
    if len(data) != form.size or not data.startswith(mark):
        raise ArchiveError(f"cannot be read: {fault}")
    return form.unpack(data)[1:]


def _read(file: IO[bytes], place: int, size: int) -> bytes:
    file.seek(max(0, place))
    return file.read(size)
