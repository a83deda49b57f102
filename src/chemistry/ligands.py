"""Ligand files (SDF and MOL2, plain or gzip) -> Ligand: heavy atoms with typed chemistry, by RDKit.

Hydrogens are removed, then the molecule is brought to its neutral form, so that explicit, polar or missing
hydrogens and the protonation state of the file make no difference (src/chemistry/ligand_typing.py). Bond orders do: a
tautomer is another molecule.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
from rdkit import Chem, rdBase
from scipy.spatial import cKDTree

from src.chemistry.atoms import MAX_COORDINATE, Atoms, StructureError, clean_name, iter_lines, sorted_bonds
from src.chemistry.ligand_parsing import parse_ligand
from src.chemistry.ligand_typing import Sanitisation, bond_types, heavy_form, ligand_features
from src.chemistry.residues import SYMBOLS

MAX_MOLECULE_BYTES = 32 * 2**20  # text of one molecule; 999 atoms need 100 kB
SAME_PLACE = 0.05  # Å between the same atom in two files of one pose; PDB files have three decimals

_HEAD_LINES = 1000  # within which a file must show what it is
_NOT_LIGANDS = (".pdb", ".ent", ".pdbqt", ".cif", ".mmcif", ".smi", ".smiles")
_LISTS = (".txt", ".lst", ".list", ".csv", ".tsv")


class LigandError(StructureError):
    """A ligand cannot be used; the message names the file, the molecule and the cause."""


@dataclass(frozen=True)
class Ligand:
    name: str
    atoms: Atoms
    smiles: str  # neutral form without hydrogens; empty when RDKit cannot write one
    read_as: str  # 'sdf', 'mol2', or what Sanitisation says before them, such as 'partial sanitisation of the sdf'
    notes: tuple[str, ...]
    mol: Chem.Mol | None = None  # the same atoms, as read


def read_ligand(paths: Sequence[Path]) -> Ligand:
    """The ligand that several files describe: the SDF if it is sound, else the MOL2, else what can be kept.

    What can be kept is first a molecule whose aromatic nitrogens get the hydrogens that their file lacks, then one
    whose lost bond orders its shape shows, then one without the checks of valence and the assignment of double bonds
    that failed, each of the SDF before the MOL2. A file with other coordinates than the first is not used. Of a file
    with several molecules the first is read, and a note says so.

    Raises:
        LigandError: none of the files gives a molecule with 3D coordinates; the message has the reason of each.
    """
    reasons: list[str] = []
    blocks: list[LigandRecord] = []
    for path in map(Path, paths):
        try:
            blocks.append(_first_block(path))
        except StructureError as error:
            reasons.append(str(error))
    blocks, others = _of_one_pose(blocks)
    reasons += [f"{other.path}: has another pose than {blocks[0].path.name}, not used" for other in others]
    blocks.sort(key=lambda block: block.kind != "sdf")
    for how in Sanitisation:
        for block in blocks:
            try:
                ligand = _ligand(block, how)
            except LigandError as error:
                reasons.append(str(error))
            else:
                return _with_notes(ligand, reasons, block, blocks)
    raise LigandError("; ".join(dict.fromkeys(reasons)) or "no ligand file was given; expected an SDF or a MOL2 file")


def iter_ligands(path: Path) -> Iterator[Ligand | LigandError]:
    """Every molecule of a file in order, one at a time; one that cannot be used comes as its LigandError.

    The only molecule of a file that is not sound is read as `read_ligand` does in training, from the SDF and the MOL2
    of the same name where both are there.

    Raises:
        LigandError: there is no first molecule: the file is missing, of another kind, damaged or empty.
    """
    number = 0
    try:
        for block in ligand_records(Path(path)):
            number = block.number
            yield ligand_of(block)
    except StructureError as error:
        if number == 0:
            raise
        yield error if isinstance(error, LigandError) else LigandError(str(error))


@dataclass(frozen=True)
class LigandRecord:
    path: Path
    kind: str  # 'sdf' or 'mol2'
    number: int  # in the file, from 1
    text: str
    followed: bool = False  # by another molecule

    def __str__(self) -> str:
        return f"{self.path}, molecule {self.number}"


def ligand_of(block: LigandRecord) -> Ligand | LigandError:
    try:
        return _ligand(block, Sanitisation.SOUND)
    except LigandError as error:
        reason = error  # Python forgets the name of an exception after its block
    twin = _twin(block)
    if twin is None or not _is_same_pose(block, twin):
        return _mended(block, reason)
    try:
        ligand = read_ligand([block.path, twin.path])
    except LigandError as error:
        return error
    if ligand.read_as.endswith(block.kind):
        return ligand
    return replace(ligand, notes=(f"{twin.path.name}, which lies beside {block.path.name}, was read", *ligand.notes))


def _mended(block: LigandRecord, reason: LigandError) -> Ligand | LigandError:
    """Mended or sanitised in part, with the reason why not wholly; that reason if not even that is possible."""
    for how in (Sanitisation.COMPLETED, Sanitisation.RESTORED, Sanitisation.PARTIAL):
        try:
            return _with_notes(_ligand(block, how), [str(reason)], block, [block])
        except LigandError as error:
            if str(error).startswith(str(reason)):  # the same, with why it could not be mended
                reason = error
    return reason


def _twin(block: LigandRecord) -> LigandRecord | None:
    """What the file of the same name in the other format has of the only molecule of the block's file."""
    endings = {"sdf": (".mol2", ".mol2.gz"), "mol2": (".sdf", ".sdf.gz")}[block.kind]
    stem = block.path.name.removesuffix(".gz").rpartition(".")[0]
    twins = [path for path in (block.path.with_name(stem + ending) for ending in endings) if stem and path.is_file()]
    if not twins or block.number != 1 or _first_block(block.path).followed:
        return None
    with contextlib.suppress(LigandError):
        return _first_block(twins[0])
    return None


def _of_one_pose(blocks: list[LigandRecord]) -> tuple[list[LigandRecord], list[LigandRecord]]:
    """Those with the coordinates of the first, or that cannot be compared with it since one cannot be read; the others.

    In training the files of one folder are one ligand; a folder with two poses does not say which one was measured.
    """
    others = [other for other in blocks[1:] if _heavy_pos(blocks[0]) is not None and _heavy_pos(other) is not None]
    others = [other for other in others if not _is_same_pose(blocks[0], other)]
    return [block for block in blocks if block not in others], others


def _is_same_pose(block: LigandRecord, other: LigandRecord) -> bool:
    """Whether every heavy atom of the smaller one lies on an atom of the other; False where one cannot be read."""
    few, many = sorted((_heavy_pos(block), _heavy_pos(other)), key=lambda pos: -1 if pos is None else len(pos))
    if few is None or not len(few) or not (np.isfinite(few).all() and np.isfinite(many).all()):
        return False
    return bool(cKDTree(many).query(few)[0].max() < SAME_PLACE)


def _heavy_pos(block: LigandRecord) -> np.ndarray | None:
    mol = _parsed(block)
    if mol is None or not mol.GetNumConformers():
        return None
    return mol.GetConformer().GetPositions()[[atom.GetAtomicNum() != 1 for atom in mol.GetAtoms()]]


def _with_notes(ligand: Ligand, reasons: list[str], block: LigandRecord, blocks: list[LigandRecord]) -> Ligand:
    notes = [*ligand.notes, *dict.fromkeys(reasons)]
    if block.followed:
        notes.append(f"{block.path} holds several molecules, first used")
    for other in blocks:
        if other.kind != block.kind and (difference := _difference(block, other)):
            notes.append(f"{other.path.name} disagrees ({difference}); {block.path.name} used")
    return replace(ligand, notes=tuple(notes))


def _difference(block: LigandRecord, other: LigandRecord) -> str:
    formulas = []
    for each in (block, other):
        mol = _parsed(each)
        counts = Counter(atom.GetSymbol() for atom in mol.GetAtoms() if atom.GetAtomicNum() != 1) if mol else {}
        formulas.append("".join(f"{symbol}{counts[symbol]}" for symbol in sorted(counts)))
    return "" if formulas[0] == formulas[1] else f"{formulas[1] or 'unreadable'} for {formulas[0]}"


def _parsed(block: LigandRecord) -> Chem.Mol | None:
    try:
        return parse_ligand(block.text, block.kind)[0]
    except ValueError:  # what is wrong with it is said where it is read as a ligand
        return None


def _ligand(block: LigandRecord, how: Sanitisation) -> Ligand:
    with rdBase.BlockLogs():
        try:
            mol, parsing_notes = parse_ligand(block.text, block.kind)
        except ValueError as error:
            raise LigandError(f"{block}: cannot read it as {block.kind.upper()}: {error}") from error
        if mol is None or not mol.GetNumAtoms():
            raise LigandError(f"{block}: RDKit cannot read it as {block.kind.upper()}; expected a complete record")
        if mol.GetNumAtoms() > 1 and not mol.GetNumBonds():
            raise LigandError(f"{block}: has {mol.GetNumAtoms()} atoms and no bonds; expected bond orders")
        _require_3d(mol, block)
        try:
            mol, notes = heavy_form(mol, how=how, states_charges=block.kind == "sdf")
            if not mol.GetNumAtoms():
                raise LigandError(f"{block}: has no heavy atoms")
            features = ligand_features(mol)
            pairs, kinds = sorted_bonds(bond_types(mol))
            smiles = _smiles(mol)
        except LigandError:
            raise
        except (ValueError, RuntimeError) as error:  # all of RDKit's own exceptions are one of these
            raise LigandError(f"{block}: cannot be sanitised: {str(error).strip().splitlines()[0]}") from error
    title = mol.GetProp("_Name") if mol.HasProp("_Name") else ""
    name = clean_name(title.strip("*")) or clean_name(block.path.name.split(".")[0])  # Open Babel's no name is *****
    pos = np.array(mol.GetConformer().GetPositions(), dtype=np.float64)
    atoms = Atoms(
        pos=pos,
        features=features,
        residue_index=np.zeros(len(pos), dtype=np.int32),
        residue_labels=(name,),
        atom_names=tuple(f"{SYMBOLS[atom.GetAtomicNum()]}{atom.GetIdx() + 1}" for atom in mol.GetAtoms()),
        bonds=pairs,
        bond_types=kinds,
    )
    return Ligand(name, atoms, smiles, f"{how.value}{block.kind}", (*parsing_notes, *notes), mol)


def _smiles(mol: Chem.Mol) -> str:
    try:
        return Chem.MolToSmiles(mol)
    except RuntimeError:  # of a molecule that could be sanitised only in part
        return ""


def _require_3d(mol: Chem.Mol, block: LigandRecord) -> None:
    """A pose never lies exactly in one plane of constant z; a drawing does."""
    pos = mol.GetConformer().GetPositions() if mol.GetNumConformers() else np.zeros((mol.GetNumAtoms(), 3))
    if not (np.abs(pos) <= MAX_COORDINATE).all():
        raise LigandError(f"{block}: has a coordinate that is not finite or beyond 99,999 Å")
    spread = np.ptp(pos, axis=0)
    if (len(pos) > 1 and spread.max() < 1e-3) or (len(pos) > 3 and spread[2] < 1e-4):
        raise LigandError(f"{block}: no 3D coordinates; expected a pose in the frame of the protein, not a drawing")


def _first_block(path: Path) -> LigandRecord:
    blocks = ligand_records(path)
    first = next(blocks)
    return replace(first, followed=_has_next(blocks))


def _has_next(blocks: Iterator[LigandRecord]) -> bool:
    try:
        return next(blocks, None) is not None
    except StructureError:  # damage behind the molecule that is used
        return True


def ligand_records(path: Path) -> Iterator[LigandRecord]:
    """The molecules of a file as text, one at a time; raises LigandError when there is none."""
    endings = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    if endings and endings[-1] in _NOT_LIGANDS:
        advice = f"convert {endings[-1]} to SDF or MOL2 with 3D coordinates"
        if endings[-1] in (".cif", ".mmcif"):
            advice += ", or give a file that has the protein, too, as --complex_path"
        raise LigandError(f"{path}: a ligand needs bond orders; {advice}")
    if endings and endings[-1] in _LISTS:
        raise LigandError(
            f"{path}: a list or table holds no coordinates; give the SDF or MOL2 files themselves or their folder, or "
            "a table with the columns protein_path and ligand_path as --pairs"
        )
    number = 0
    try:
        kind, lines = _kind(path)
        for text in _split(path, kind, lines):
            number += 1
            yield LigandRecord(path, kind, number, text)
    except LigandError:
        raise
    except StructureError as error:
        raise LigandError(str(error)) from error
    if number == 0:
        raise LigandError(f"{path}: holds no molecule; expected SDF or MOL2")


def _kind(path: Path) -> tuple[str, Iterator[str]]:
    """'sdf' or 'mol2' by the first telling line, and all lines of the file as text."""
    lines = (line.decode("utf-8-sig", errors="replace") for line in iter_lines(path))
    head: list[str] = []
    size = 0
    for line in islice(lines, _HEAD_LINES):
        head.append(line)
        size += len(line)
        if size > MAX_MOLECULE_BYTES:
            break
        if line.startswith("@<TRIPOS>"):
            return "mol2", chain(head, lines)
        if line.startswith(("$$$$", "M  END", "M  V30")) or _is_counts_line(line):
            return "sdf", chain(head, lines)
        if line.startswith(("ATOM  ", "HETATM", "ROOT", "_atom_site.")):
            raise LigandError(f"{path}: is a PDB, PDBQT or mmCIF file; a ligand needs bond orders, convert it to SDF")
    if not any(map(str.strip, head)):
        raise LigandError(f"{path}: is empty; expected SDF or MOL2")
    raise LigandError(f"{path}: is neither SDF nor MOL2; convert the ligand to SDF with 3D coordinates")


def _is_counts_line(line: str) -> bool:
    """The fourth line of a molecule in an SDF: how many atoms and bonds follow, and in which version."""
    return line[33:39].strip() in ("V2000", "V3000")


def _split(path: Path, kind: str, lines: Iterator[str]) -> Iterator[str]:
    block: list[str] = []
    size = 0
    counted = False
    for line in lines:
        if kind == "sdf" and line.startswith("$$$$"):
            yield "\n".join([*block, ""])
            block, size, counted = [], 0, False
            continue
        if kind == "sdf" and _is_counts_line(line):
            # The record before has lost its $$$$; three lines of header come before the counts. What follows the
            # name of a data field is its value, even if that is a molecule.
            if counted and not block[-4].startswith(">"):
                yield "\n".join([*block[:-3], ""])
                block, size = block[-3:], sum(len(text) + 1 for text in block[-3:])
            counted = True
        if kind == "mol2" and line.startswith("@<TRIPOS>MOLECULE"):
            # What comes before the first molecule is comment.
            if any(text.startswith("@<TRIPOS>MOLECULE") for text in block):
                yield "\n".join([*block, ""])
            block, size = [], 0
        block.append(line)
        size += len(line) + 1
        if size > MAX_MOLECULE_BYTES:
            raise LigandError(
                f"{path}: one molecule takes more than {MAX_MOLECULE_BYTES:,} bytes; is it a ligand file?"
            )
    if any(map(str.strip, block)):
        yield "\n".join([*block, ""])
