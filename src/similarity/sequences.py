"""Structure files -> the protein sequence of each complex, kept in processed_data/sequences.json.

SEQRES records are the sequence where a PDB file has them. Otherwise it is that of the residues with a CA atom, and a
gap in the residue numbers is filled with as many X, so that the residues of a pocket keep their distances along the
chain and two pockets of one protein can be aligned. Chains with one letter or none are told apart by where they lie.
A pocket file tells no more than its pocket: that two proteins differ elsewhere, or are the same with another site,
cannot be seen from it.
"""

from __future__ import annotations

import json
import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from src.chemistry.atoms import StructureError, read_bytes
from src.chemistry.conformers import OVERLAP_DISTANCE
from src.chemistry.mmcif_records import is_mmcif, mmcif_records
from src.chemistry.pdb_records import Record, alpha_carbons
from src.chemistry.residue_names import table_name
from src.chemistry.residues import parent_of
from src.data.manifest import MAX_VARIANTS
from src.graph import RESIDUE_TYPES
from src.pdbbind.folders import ComplexFiles
from src.settings import ProcessingSettings
from src.system.locks import in_turn
from src.system.storage import prepare_folder, write_text
from src.system.workers import WorkerFault, run_supervised

log = logging.getLogger(__name__)

VERSION = 3  # of what is read from a file
MAX_GAP = 300  # X for one jump of the residue numbers
MAX_LENGTH = 6000  # residues of a chain; no chain of the PDB is longer, and alignments take its product with another
MAX_CHAINS = 100  # different ones of a complex; a ribosome has some 80
MAX_COPIES = 20  # of one residue; further ones in an assembly show nothing new
FEW_FILES = 500  # are read by one worker process before a second one has started
UNKNOWN = "X"
_BACKBONE = ("N", "CA", "C", "O")  # which every residue has that counts here
ONE_LETTER = dict(zip(RESIDUE_TYPES[1:21], "ARNDCQEGHILKMFPSTWYV", strict=True))


@dataclass(frozen=True)
class Chains:
    """The amino acid chains of one complex."""

    sequences: tuple[str, ...]  # one-letter code, X for what is not known; none for a nucleic acid
    origin: str  # 'seqres', 'protein' (residues with coordinates), 'pocket' or 'none' (the file cannot be read)


def describe(files: Sequence[ComplexFiles], processing: ProcessingSettings) -> dict[str, Chains]:
    """The chains of each complex by code; files that have not changed since the last call are not read again.

    Raises:
        StorageError: the disk does not take the sequences.
        WorkerStartError: worker processes do not start.
    """
    path = Path(processing.processed_data_dir) / "sequences.json"
    signatures = {one.code: _signature(one) for one in files}
    known = _read_cache(path)
    found = {
        code: Chains(tuple(entry["sequences"]), entry["origin"])
        for code, source in signatures.items()
        for entry in known.get(code, [])
        if entry["source"] == source
    }
    found |= {one.code: Chains((), "none") for one in files if not (one.protein or one.pocket)}
    missing = [one for one in files if one.code not in found]
    results = run_supervised(
        read_chains,
        missing,
        num_workers=min(processing.num_workers, math.ceil(len(missing) / FEW_FILES)),
        timeout_s=processing.timeout_s,
        memory_gb=processing.memory_gb,
    )
    new = {}
    for number, result in results:
        code = missing[number].code
        if isinstance(result, WorkerFault):
            log.warning("%s: its sequence is not known: %s", code, result.reason)
            result = Chains((), "none")
        found[code] = result
        # What cannot be read now may be later, though the file stays as it is: a drive, a permission, the memory.
        if signatures[code] and result.origin != "none":
            new[code] = {"source": signatures[code], "sequences": list(result.sequences), "origin": result.origin}
    if new:
        _add_to_cache(path, new)
    return {one.code: found[one.code] for one in files}


def read_chains(files: ComplexFiles) -> Chains:
    """The chains of the protein file, or of the pocket file where there is none; none of a file that is damaged."""
    path = files.protein or files.pocket
    if path is None:
        return Chains((), "none")
    try:
        data = read_bytes(path)
        if is_mmcif(data):
            sequences = _by_places(record for record in mmcif_records(data, []) if record.name == "CA")
            origin = "protein"
        else:
            seqres = _seqres(data.splitlines())
            sequences, origin = seqres or _by_places(alpha_carbons(data)), "seqres" if seqres else "protein"
    except (StructureError, ValueError, LookupError) as error:
        # A file that is good enough for its pocket may be damaged elsewhere; the graph has its own reader.
        log.warning("%s: %s: its sequence is not known: %s", files.code, path, error)
        return Chains((), "none")
    return Chains(sequences, origin if files.protein or origin == "seqres" else "pocket")


def _seqres(lines: Iterable[bytes]) -> tuple[str, ...]:
    """https://www.wwpdb.org/documentation/file-format-content/format33/sect3.html#SEQRES"""
    chains: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        if line[:6].upper() == b"SEQRES":
            chains[line[11:12].decode("latin-1")] += line[19:70].decode("latin-1").upper().split()
    return _sequences([_letter(name) or UNKNOWN for name in names] for names in chains.values())


@dataclass
class _Chain:
    """One of the chains that have one letter, as far as it was read."""

    letters: dict[tuple[int, str], str] = field(default_factory=dict)  # (number, insertion code) -> one-letter code
    carbons: dict[tuple[int, str], Record] = field(default_factory=dict)
    end: tuple[float, float, float] = (0.0, 0.0, 0.0)  # Å, the last CA


def _by_places(carbons: Iterable[Record]) -> tuple[str, ...]:
    """Sequences of the residues with these CA; a residue goes to the chain that ends nearest to it."""
    chains: dict[str, list[_Chain]] = defaultdict(list)
    for carbon in carbons:
        letter = _letter(carbon.residue)  # calcium has none
        site = (carbon.number, carbon.insertion)
        copies = chains[carbon.chain]
        if not letter or any(_is_alternative(carbon, copy.carbons.get(site)) for copy in copies):
            continue
        free = [copy for copy in copies if site not in copy.letters]
        if not free and len(copies) < MAX_COPIES:
            free = [_Chain()]
            copies += free
        if free:
            chain = min(free, key=lambda copy: math.dist(copy.end, carbon.pos))
            chain.letters[site], chain.carbons[site], chain.end = letter, carbon, carbon.pos
    return _sequences(_with_gaps(chain.letters) for copies in chains.values() for chain in copies)


def _is_alternative(carbon: Record, other: Record | None) -> bool:
    """Whether two CA of one residue number are one residue; the first of its conformers counts."""
    if other is None:
        return False
    by_letters = bool(carbon.altloc and other.altloc) and carbon.altloc != other.altloc
    return by_letters or math.dist(carbon.pos, other.pos) < OVERLAP_DISTANCE


def _with_gaps(residues: dict[tuple[int, str], str]) -> list[str]:
    letters: list[str] = []
    before = None
    for (number, _), letter in residues.items():
        if before is not None:
            letters += UNKNOWN * min(max(number - before - 1, 0), MAX_GAP)
        letters.append(letter)
        before = number
    return letters


def _sequences(chains: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Each different chain once, without those that hold no amino acid; the longest of more than there can be."""
    texts = {"".join(letters[:MAX_LENGTH]).strip(UNKNOWN) for letters in chains}
    longest = sorted((text for text in texts if text), key=lambda text: (-len(text), text))
    return tuple(sorted(longest[:MAX_CHAINS]))


def _letter(name: str) -> str | None:
    return ONE_LETTER.get(parent_of(table_name(name.strip(), _BACKBONE)) or "")


def _signature(files: ComplexFiles) -> list:
    path = files.protein or files.pocket
    try:
        stat = path.stat() if path else None
    except OSError:  # a drive that is away; reading will say so
        stat = None
    return [path.name, stat.st_size, stat.st_mtime_ns] if path and stat else []


def _add_to_cache(path: Path, new: dict[str, dict]) -> None:
    """Put entries into the file, in the place of those of the same files; other processes write into it too."""
    prepare_folder(path.parent)
    with in_turn(path.parent):
        known = _read_cache(path)
        for code, entry in new.items():
            others = [one for one in known.get(code, []) if one["source"] != entry["source"]]
            known[code] = [*others, entry][-MAX_VARIANTS:]
        content = {"version": VERSION, "entries": dict(sorted(known.items()))}
        write_text(path, json.dumps(content, separators=(",", ":")))


def _read_cache(path: Path) -> dict[str, list[dict]]:
    """Entries of the right form. Data sets may hold other files under one code, so a code has an entry for each."""
    entries = read_kept(path, "entries", VERSION, "the sequences are read again")
    return {code: [entry for entry in variants if _has_form(entry)] for code, variants in entries.items()}


def read_kept(path: Path, part: str, version: int, what_is_done: str) -> dict[str, list]:
    """Lists that were kept in a JSON file; whatever else stands in a file that anybody can edit is found anew."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kept = content[part] if content["version"] == version else {}
        return {key: value for key, value in kept.items() if isinstance(value, list)}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s cannot be read (%s); %s", path, error, what_is_done)
        return {}


def _has_form(entry: object) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("sequences"), list) or not entry.get("source"):
        return False
    letters = set(ONE_LETTER.values()) | {UNKNOWN}
    texts = all(isinstance(text, str) and text and set(text) <= letters for text in entry["sequences"])
    return texts and isinstance(entry.get("origin"), str)
