"""Structure, ligand and index files as damage leaves them: the same 500 for the same seed.

The whole files are the first complexes of the demo set in every format that is read. Each mutated file has one to three
faults, as they come from broken disks, cut downloads, editors and programs that write wrong columns.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from pathlib import Path
from random import Random

from rdkit import Chem

from src.data.demo import write_demo
from tests.complexes import mmcif

SEED = 0
NUM_COMPLEXES = 4
CODES = tuple(f"d{number:03d}" for number in range(1, NUM_COMPLEXES + 1))
COUNTS = {"pdb": 110, "mmcif": 90, "sdf": 90, "sdf of v3000": 70, "mol2": 80, "index": 60}  # 500 in all
SUFFIX = {"pdb": ".pdb", "mmcif": ".cif", "sdf": ".sdf", "sdf of v3000": ".sdf", "mol2": ".mol2", "index": ".lst"}
PROTEINS, LIGANDS = ("pdb", "mmcif"), ("sdf", "sdf of v3000", "mol2")

_NUMBER = re.compile(rb"-?\d+\.?\d*")
_ODD_NUMBERS = (b"nan", b"inf", b"-1", b"1e300", b"*****", b"999999999999", b"", b"0", b"1,5", b"0x1F", b"\xb2")
_ODD_LINES = (b"", b"END", b"M  END", b"$$$$", b"@<TRIPOS>ATOM", b"loop_", b"_atom_site.id", b"ENDMDL", b"\t", b";")


@dataclass(frozen=True)
class MutatedFile:
    """One damaged file and how it came to be."""

    kind: str  # a key of COUNTS
    code: str  # of the complex it was made from
    faults: tuple[str, ...]
    content: bytes

    def write(self, folder: Path, name: str) -> Path:
        path = folder / f"{name}{SUFFIX[self.kind]}"
        path.write_bytes(self.content)
        return path


def whole_files(folder: Path) -> dict[tuple[str, str], bytes]:
    """(kind, code) -> content, after the demo set was written into folder."""
    index = write_demo(folder, num_complexes=NUM_COMPLEXES)
    files = {}
    for code in CODES:
        texts = {suffix: (folder / code / f"{code}_{suffix}").read_text() for suffix in ("protein.pdb", "ligand.sdf")}
        mol = Chem.MolFromMolBlock(texts["ligand.sdf"], removeHs=False)
        files |= {
            ("pdb", code): texts["protein.pdb"].encode(),
            ("mmcif", code): mmcif(_atom_lines(texts["protein.pdb"])).encode(),
            ("sdf", code): texts["ligand.sdf"].encode(),
            ("sdf of v3000", code): (Chem.MolToMolBlock(mol, forceV3000=True) + "$$$$\n").encode(),
            ("mol2", code): (folder / code / f"{code}_ligand.mol2").read_bytes(),
            ("index", code): index.read_bytes(),
        }
    return files


def mutated_files(whole: dict[tuple[str, str], bytes], *, every: int = 1) -> list[MutatedFile]:
    """All 500, or each every-th of them."""
    files = []
    for kind, count in COUNTS.items():
        others = list(whole.values())
        for number in range(0, count, every):
            rng = Random(f"{SEED} {kind} {number}")
            code = CODES[number % len(CODES)]
            files.append(_mutated(kind, code, whole[kind, code], others, rng))
    return files


def damaged(content: bytes, rng: Random, others: list[bytes] | None = None) -> tuple[tuple[str, ...], bytes]:
    """Names of one to three faults, and the content with them; others are files of which a part may slip in."""
    names = tuple(rng.choice(list(_FAULTS)) for _ in range(rng.choice((1, 1, 1, 2, 3))))
    for name in names:
        content = _FAULTS[name](content, rng, others or [content])
    return names, content


def _mutated(kind: str, code: str, content: bytes, others: list[bytes], rng: Random) -> MutatedFile:
    faults, content = damaged(content, rng, others)
    if rng.random() < 0.1:
        faults, content = (*faults, "packed"), gzip.compress(content, mtime=0)
        if rng.random() < 0.5:
            faults, content = (*faults, "cut while packed"), _cut(content, rng, others)
    return MutatedFile(kind, code, faults, content)


def _atom_lines(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if line.startswith(("ATOM", "HETATM")))


def _flip_bytes(content: bytes, rng: Random, others: list[bytes]) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 3, 30))):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _cut(content: bytes, rng: Random, others: list[bytes]) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _cut_out(content: bytes, rng: Random, others: list[bytes]) -> bytes:
    first, last = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:first] + content[last:]


def _splice(content: bytes, rng: Random, others: list[bytes]) -> bytes:
    """The beginning of a file and the end of another, of the same format or not."""
    other = rng.choice(others)
    return content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other) + 1) :]


def _zero_page(content: bytes, rng: Random, others: list[bytes]) -> bytes:
    first = rng.randrange(len(content) + 1)
    return content[:first] + bytes(len(content[first : first + 512])) + content[first + 512 :]


def _delete_lines(content: bytes, rng: Random, others: list[bytes]) -> bytes:
    lines = content.split(b"\n")
    first = rng.randrange(len(lines))
    return b"\n".join(lines[:first] + lines[first + rng.choice((1, 2, 20)) :])


def _repeat_lines(content: bytes, rng: Random, others: list[bytes]) -> bytes:
    lines = content.split(b"\n")
    first = rng.randrange(len(lines))
    return b"\n".join(lines[:first] + lines[first : first + rng.choice((1, 2, 40))] * 2 + lines[first:])


def _swap_lines(content: bytes, rng: Random, others: list[bytes]) -> bytes:
    lines = content.split(b"\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return b"\n".join(lines)


def _odd_line(content: bytes, rng: Random, others: list[bytes]) -> bytes:
    lines = content.split(b"\n")
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(_ODD_LINES))
    return b"\n".join(lines)


def _garble_numbers(content: bytes, rng: Random, others: list[bytes]) -> bytes:
    places = [match.span() for match in _NUMBER.finditer(content)]
    for first, last in sorted(rng.sample(places, min(len(places), rng.choice((1, 2, 10)))), reverse=True):
        odd = rng.choice(_ODD_NUMBERS)
        if rng.random() < 0.5:  # in its columns, as programs with a fixed format write it
            odd = odd[: last - first].rjust(last - first)
        content = content[:first] + odd + content[last:]
    return content


def _shift_columns(content: bytes, rng: Random, others: list[bytes]) -> bytes:
    lines = content.split(b"\n")
    for _ in range(rng.choice((1, 10))):
        number = rng.randrange(len(lines))
        place = rng.randrange(len(lines[number]) + 1)
        lines[number] = lines[number][:place] + rng.choice((b" ", b"\t", b"")) + lines[number][place + 1 :]
    return b"\n".join(lines)


def _other_line_ends(content: bytes, rng: Random, others: list[bytes]) -> bytes:
    return content.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"\x0b", b"\xe2\x80\xa8")))


_FAULTS = {
    "bytes flipped": _flip_bytes,
    "cut": _cut,
    "a part cut out": _cut_out,
    "spliced": _splice,
    "a page of zeros": _zero_page,
    "lines deleted": _delete_lines,
    "lines repeated": _repeat_lines,
    "lines swapped": _swap_lines,
    "an odd line": _odd_line,
    "numbers garbled": _garble_numbers,
    "columns shifted": _shift_columns,
    "other line ends": _other_line_ends,
}
