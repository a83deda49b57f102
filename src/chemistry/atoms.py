"""Atoms in space as NumPy arrays, and safe reading of the bytes that structure files are made of."""

from __future__ import annotations

import codecs
import gzip
import sys
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.system.errors import UserError

STANDARD_INPUT = Path("-")
GZIP_MAGIC = b"\x1f\x8b"
PIECE_BYTES = 2**20
MAX_BYTES = 512 * 2**20  # of one file after decompression; a 500,000-atom assembly has 40 MB
MAX_LINE_BYTES = 2**20
MAX_NAME_LENGTH = 100
MAX_COORDINATE = 99_999.0  # Å; beyond it a fixed-column PDB file cannot hold the number


class StructureError(UserError):
    """A structure file cannot be used; the message names the file, the cause and what would be right."""


class ResidueId(NamedTuple):
    """Where a residue stands in its file; a second copy of a chain without letters has the same."""

    chain: str
    name: str
    number: int
    insertion: str


@dataclass(frozen=True)
class Atoms:
    """n heavy atoms in r residues; the atoms of one residue are consecutive."""

    pos: np.ndarray  # [n, 3] float64, Å
    features: np.ndarray  # [n, 9] uint8, columns NODE_FEATURES of src/graph.py
    residue_index: np.ndarray  # [n] int32, 0 .. r-1, ascending
    residue_labels: tuple[str, ...]  # [r], such as 'A:ASP189' or, with an insertion code, 'A:ASP189B'
    atom_names: tuple[str, ...]  # [n]
    bonds: np.ndarray  # [2, b] int32, i < j, sorted
    bond_types: np.ndarray  # [b] uint8, BondType
    residue_ids: tuple[ResidueId, ...] = ()  # [r] for a protein, none for a ligand

    def __len__(self) -> int:
        return len(self.pos)


def take(atoms: Atoms, keep: np.ndarray) -> Atoms:
    """The atoms where keep [n] (bool) is true, with the bonds between them, residues numbered anew."""
    keep = np.asarray(keep)
    assert keep.dtype == bool, "keep must be a mask, not numbers"
    assert keep.shape == (len(atoms),), "keep must be one bool per atom"
    new_number = np.cumsum(keep, dtype=np.int32) - 1
    kept_bonds = keep[atoms.bonds].all(axis=0)
    residues, residue_index = np.unique(atoms.residue_index[keep], return_inverse=True)
    return Atoms(
        pos=atoms.pos[keep],
        features=atoms.features[keep],
        residue_index=residue_index.astype(np.int32),
        residue_labels=tuple(atoms.residue_labels[residue] for residue in residues),
        atom_names=tuple(atoms.atom_names[atom] for atom in np.flatnonzero(keep)),
        bonds=new_number[atoms.bonds[:, kept_bonds]],
        bond_types=atoms.bond_types[kept_bonds],
        residue_ids=tuple(atoms.residue_ids[residue] for residue in residues) if atoms.residue_ids else (),
    )


def sorted_bonds(bonds: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """(i, j, BondType) in any order -> bonds [2, b] int32 with i < j, sorted, once each; types [b] uint8."""
    ordered = {(min(i, j), max(i, j)): kind for i, j, kind in bonds}
    pairs = sorted(ordered)
    kinds = [ordered[pair] for pair in pairs]
    return np.array(pairs, dtype=np.int32).reshape(-1, 2).T.copy(), np.array(kinds, dtype=np.uint8)


def read_bytes(path: Path) -> bytes:
    """The content of a file without a byte order mark, decompressed when it is gzip whatever its name says.

    Raises:
        StructureError: missing, not a regular file, unreadable, empty, damaged gzip, or over MAX_BYTES.
    """
    try:
        with _open_binary(path) as stream:
            # In pieces: one read of the limit would ask for that much memory for every small file.
            pieces, size = [], 0
            while size <= MAX_BYTES and (piece := stream.read(PIECE_BYTES)):
                pieces.append(piece)
                size += len(piece)
            data = b"".join(pieces)
    except (OSError, EOFError, zlib.error) as error:
        raise StructureError(f"{path}: cannot be read: {error}") from error
    if len(data) > MAX_BYTES:
        raise StructureError(
            f"{path}: holds more than {MAX_BYTES:,} bytes after decompression; one structure needs less"
        )
    if not data.strip():
        raise StructureError(f"{path}: is empty; expected the text of a structure")
    return data.removeprefix(codecs.BOM_UTF8)  # before an ATOM it would hide it


def iter_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file of any length (gzip or plain) without their ends, one at a time.

    Lines end in LF or CR LF, or all in CR alone, as old Macintosh programs write them.

    Raises:
        StructureError: as read_bytes, or a line of more than MAX_LINE_BYTES.
    """
    try:
        with _open_binary(path) as stream:
            only_cr, rest = None, b""
            while line := stream.readline(MAX_LINE_BYTES + 1):
                if only_cr is None:
                    only_cr = line.rstrip(b"\r\n").count(b"\r") > 2  # fewer may stand in a title
                if only_cr:
                    *whole, rest = (rest + line).replace(b"\n", b"\r").split(b"\r")
                    yield from whole
                if len(rest if only_cr else line) > MAX_LINE_BYTES:
                    raise StructureError(
                        f"{path}: has a line of over {MAX_LINE_BYTES:,} bytes; this is not a text file"
                    )
                if not only_cr:
                    yield line.rstrip(b"\r\n")
            if rest:
                yield rest
    except (OSError, EOFError, zlib.error) as error:
        raise StructureError(f"{path}: cannot be read: {error}") from error


@lru_cache(maxsize=65536)
def clean_name(text: str) -> str:
    """A name that is safe in a log, a table or a terminal: printable, on one line, <= MAX_NAME_LENGTH."""
    visible = "".join(c if unicodedata.category(c)[0] not in "CZ" else " " for c in text[: 10 * MAX_NAME_LENGTH])
    return " ".join(visible.split())[:MAX_NAME_LENGTH]


def _open_binary(path: Path) -> gzip.GzipFile | object:
    if path == STANDARD_INPUT:
        stream = sys.stdin.buffer
        return gzip.GzipFile(fileobj=stream) if stream.peek(2)[:2] == GZIP_MAGIC else stream
    if not path.exists():
        raise StructureError(f"{path}: there is no such file")
    if not path.is_file():
        raise StructureError(f"{path}: is not a file; expected the path of one structure file")
    stream = path.open("rb")
    magic = stream.read(2)
    stream.seek(0)
    # GzipFile does not close a file object it was given; the descriptor goes when both are collected.
    return gzip.GzipFile(fileobj=stream) if magic == GZIP_MAGIC else stream
