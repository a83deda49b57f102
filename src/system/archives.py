"""A zip archive of anybody's -> its entries, whole and uncompressed, in an archive of our own.

Python's zipfile, which can verify it, and the reader of torch find the directory of a crafted archive in different
places. So torch is never given the file, but what zipfile has found in it, written anew.
"""

from __future__ import annotations

import io
import os
import zipfile
from typing import IO

from src.system.errors import UserError

MAX_ENTRIES = 100_000  # a storage of a tensor is one entry
MAGIC = b"PK\x03\x04"


class ArchiveError(UserError):
    """The archive is damaged or made to deceive; the message says how."""


def verified(file: IO[bytes]) -> IO[bytes]:
    """An archive in memory, no larger than the file, with what zipfile finds in it.

    Raises:
        ArchiveError: naming what is wrong.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        raise ArchiveError(f"not a file of this program (a zip archive is expected; this has {size} bytes)")
    try:
        with zipfile.ZipFile(file) as archive:
            return _rewritten(archive, size)
    except ArchiveError:
        raise
    except Exception as error:  # damage shows as any type: BadZipFile, EOFError, RuntimeError, UnicodeDecodeError ...
        damage = str(error).replace("Bad CRC-32 for file", "wrong checksum in")
        if damage == "File is not a zip file":  # though it begins like one
            raise ArchiveError("cannot be read: its end is missing") from error
        raise ArchiveError(f"damaged: {type(error).__name__}: {damage[:200]!a}") from error


def _rewritten(archive: zipfile.ZipFile, size: int) -> IO[bytes]:
    entries, copy = archive.infolist(), io.BytesIO()
    if len(entries) > MAX_ENTRIES:
        raise ArchiveError(f"refused: {len(entries)} entries, too many")
    if len({entry.filename.lower() for entry in entries}) < len(entries):  # torch's reader takes A for a
        raise ArchiveError(f"refused: {len(entries)} entries, some with repeated names")
    if any(entry.filename.endswith(("/", "\\")) for entry in entries):  # torch takes for it what was in memory before
        raise ArchiveError("refused: it has folders, which this program never writes")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size for entry in entries):
        raise ArchiveError("refused: its entries are compressed, which this program never does")
    if sum(entry.file_size for entry in entries) > size:
        raise ArchiveError("refused: it claims more bytes than it has")
    with zipfile.ZipFile(copy, "w") as own:
        for entry in entries:
            own.writestr(entry.filename, archive.read(entry))  # which verifies the checksum
    copy.seek(0)
    return copy
