"""Ligands in files without bond orders (PDB, PDBQT, complexes) -> records of an SDF, with what the files say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rdkit import Chem

from src.chemistry.atoms import StructureError, clean_name, iter_lines, read_bytes
from src.chemistry.bond_sources import (
    BondOrderError,
    Source,
    assign_bonds,
    conect_hydrogens,
    conect_orders,
    conect_pairs,
    fitted,
    molecule_of_smiles,
    named_bonds,
)
from src.chemistry.complex_files import LigandSite, SiteAtom, find_ligand, one_conformer, read_residues
from src.chemistry.ligands import LigandError, LigandRecord, read_ligand
from src.chemistry.mmcif_records import cif_table, is_mmcif
from src.chemistry.program_files import confidences, docking_score, input_smiles, is_predicted, remark_smiles
from src.chemistry.residue_names import AMINO_ACIDS
from src.chemistry.residues import ATOMIC_NUMBER

COMPLEX, PDB, PDBQT = "complex", "pdb", "pdbqt"  # kinds of records
KINDS = (COMPLEX, PDB, PDBQT)
COMPLEX_ENDINGS = tuple(end + gz for end in (".pdb", ".ent", ".cif", ".mmcif") for gz in ("", ".gz"))
LIGAND_ENDINGS = {".pdb": PDB, ".ent": PDB, ".pdbqt": PDBQT}
COLUMNS = ("ligand_residue", "bond_orders", "ligand_pLDDT", "pocket_pLDDT", "ipTM", "boltz_pIC50", "docking_score")

MAX_LINES = 100_000  # of a molecule
# Types of AutoDock that are no element: acceptors, aromatic carbon, ends of opened rings. W and G are no atoms.
_AUTODOCK = {"A": 6, "OA": 8, "OS": 8, "NA": 7, "NS": 7, "SA": 16, "HD": 1, "HS": 1}
_NO_ATOM = re.compile(r"W|G\d?")
_END_OF_RING = re.compile(r"CG\d?")


@dataclass(frozen=True)
class PlacedLigand:
    """A ligand with the bond orders that a source gave it."""

    record: LigandRecord  # of an SDF
    found: dict[str, object] = field(default_factory=dict)  # what goes into COLUMNS
    notes: tuple[str, ...] = ()


def is_molecule_file(text: str) -> bool:
    """Whether what should state a molecule is the name of a file, and no SMILES."""
    return text.lower().removesuffix(".gz").endswith((".sdf", ".sd", ".mol", ".mol2"))


def stem(path: Path) -> str:
    """What a complex is called, and a ligand whose file says nothing else."""
    return clean_name(path.name.removesuffix(".gz").rpartition(".")[0] or path.name)


def structure_kind(path: Path) -> str:
    """Of the records of a ligand file without bond orders; '' of every other file."""
    return LIGAND_ENDINGS.get(Path(path.name.lower().removesuffix(".gz")).suffix, "")


def structure_records(path: Path) -> Iterator[LigandRecord]:
    """The poses of a PDB or PDBQT file as text: each model, and in PDBQT each ligand of it.

    Raises:
        StructureError: the file is missing or damaged, has no ligand, or has a protein too.
    """
    kind, number = structure_kind(path), 0
    for number, text in enumerate(_split(path, kind), start=1):
        yield LigandRecord(path, kind, number, text)
    if not number:
        what = "no ROOT, as a ligand has; is it a receptor?" if kind == PDBQT else "no atoms"
        raise LigandError(f"{path}: {what}")


def place_ligand(record: LigandRecord, smiles: str = "", residue: str = "") -> PlacedLigand:
    """
    Args:
        record: of one of KINDS; of a complex the file is read here.
        smiles: the molecule, as SMILES or the path of an SDF or MOL2 file; '' where the file must tell.
        residue: which one of a complex, as find_ligand takes it.

    Raises:
        LigandError: there is no ligand, or nothing states its bond orders.
    """
    try:
        return _place(record, smiles.strip(), residue)
    except (LigandError, MemoryError):  # the second is the machine's fault and not the file's
        raise
    except StructureError as error:
        where = "" if str(error).startswith(str(record.path)) else f"{record.path}: "
        raise LigandError(f"{where}{error}") from error
    except Exception as error:  # Biopython raises KeyError, IndexError, ValueError, ... for damaged text
        text = f"{type(error).__name__}: {clean_name(str(error))}"
        raise LigandError(f"{record.path}: cannot be parsed: {text}") from error


def _place(record: LigandRecord, smiles: str, residue: str) -> PlacedLigand:
    if record.kind == COMPLEX and (is_molecule_file(record.path.name) or structure_kind(record.path) == PDBQT):
        raise LigandError(f"{record.path}: is a ligand alone; give it as --ligand_path, with --protein_path")
    data = read_bytes(record.path) if record.kind == COMPLEX else record.text.encode()
    if record.kind == COMPLEX:
        site = find_ligand(data, residue)
    else:
        atoms = _pdbqt_atoms(record.text) if record.kind == PDBQT else one_conformer(read_residues(data))
        site = LigandSite("the ligand", tuple(atoms))
    mol, source, notes = assign_bonds(site, _sources(record, data, site, smiles), is_given=bool(smiles))
    mol.SetProp("_Name", _title(record))
    found: dict[str, object] = {"bond_orders": source, "docking_score": docking_score(data.decode("latin-1"))}
    if record.kind == COMPLEX:
        found |= {"ligand_residue": site.name, **confidences(record.path)}
        if is_predicted(record.path, data):
            found |= _plddt(site)
    return PlacedLigand(LigandRecord(record.path, "sdf", record.number, _mol_block(mol)), found, notes)


def _mol_block(mol: Chem.Mol) -> str:
    """With double bonds that are known by the coordinates, or they would be written as unknown."""
    mol.UpdatePropertyCache(strict=False)
    Chem.GetSymmSSSR(mol)
    Chem.AssignStereochemistryFrom3D(mol)
    return Chem.MolToMolBlock(mol, includeStereo=False, kekulize=False)


def _sources(record: LigandRecord, data: bytes, site: LigandSite, smiles: str) -> Iterator[Source]:
    """What may state the bond orders, the first first; what the user gives is right or wrong, with nothing after it."""
    if is_molecule_file(smiles):
        yield Path(smiles).name, lambda: fitted(read_ligand([Path(smiles)]).mol, site)
    elif smiles:
        yield "the SMILES given", lambda: fitted(molecule_of_smiles(smiles), site)
    if smiles:
        return
    is_cif = record.kind == COMPLEX and is_mmcif(data)
    if rows := is_cif and _rows(data, b"_chem_comp_bond.", "comp_id", "atom_id_1", "atom_id_2", "value_order"):
        yield "_chem_comp_bond", lambda: named_bonds(site, rows, _charges(data))
    names = {atom.residue for atom in site.atoms}
    components = _rows(data, b"_chem_comp.", "id", "pdbx_smiles") if is_cif else ()
    stated = [("_chem_comp.pdbx_smiles", row[1]) for row in components if {row[0].upper()} == names]
    for name, text in stated if is_cif else [("REMARK SMILES", remark_smiles(data.decode("latin-1")))]:
        if text not in ("", ".", "?"):
            yield name, lambda text=text: fitted(molecule_of_smiles(text), site)
    if drawn := list(input_smiles(record.path)) if record.kind == COMPLEX else []:
        yield drawn[0][0], lambda: _of_one_smiles([text for _, text in drawn], site)
    if record.kind != PDBQT and not is_cif and (pairs := conect_pairs(site, data)):
        yield "CONECT orders", lambda: conect_orders(site, pairs)
        yield "CONECT and hydrogens", lambda: conect_hydrogens(site, pairs)


def _of_one_smiles(drawn: list[str], site: LigandSite) -> tuple[Chem.Mol, tuple[str, ...]]:
    """Of the ligands of an input the one that fits.

    Raises:
        BondOrderError: none does, or two that are different do.
    """
    fits, reasons = {}, []
    for smiles in dict.fromkeys(drawn):
        try:
            found = fitted(molecule_of_smiles(smiles), site)
        except BondOrderError as error:
            reasons.append(str(error))
        else:
            fits[Chem.CanonSmiles(smiles)] = found
    if len(fits) > 1:
        raise BondOrderError(f"{len(fits)} of its ligands fit the atoms")
    if not fits:
        raise BondOrderError("; ".join(reasons))
    return next(iter(fits.values()))


def _rows(data: bytes, category: bytes, *names: str) -> list[tuple[str, ...]]:
    """Some columns of a table of mmCIF; none where one is missing."""
    table = cif_table(data, category)
    return list(zip(*(table[name] for name in names), strict=True)) if table.keys() >= set(names) else []


def _charges(data: bytes) -> dict[tuple[str, str], int]:
    rows = _rows(data, b"_chem_comp_atom.", "comp_id", "atom_id", "charge")
    return {(name.upper(), atom.upper()): int(charge) for name, atom, charge in rows if charge.lstrip("+-").isdigit()}


def _plddt(site: LigandSite) -> dict[str, float]:
    """Mean over the atoms of the ligand and of its pocket, 0 to 100; some programs write 0 to 1."""
    ligand, pocket = np.mean([atom.b_factor for atom in site.heavy]), site.pocket_b_factor
    scale = 100.0 if max(ligand, pocket or 0.0) <= 1.0 else 1.0
    found = {"ligand_pLDDT": ligand, "pocket_pLDDT": pocket}
    return {name: round(scale * float(value), 1) for name, value in found.items() if value is not None}


def _title(record: LigandRecord) -> str:
    """What AutoDock's remark says, else the name of the file."""
    match = re.search(r"^REMARK[ \t]+Name[ \t]*=[ \t]*(.+)", record.text, re.MULTILINE)
    return clean_name(match[1]) if match else stem(record.path)


def _split(path: Path, kind: str) -> Iterator[str]:
    """The text of each pose: remarks of its model, then its own lines.

    Flexible residues of a receptor are none; the ENDMDL of a model may be missing.
    """
    shared: list[str] = []  # remarks of the model
    block: list[str] = []
    in_residue = False
    for raw in iter_lines(path):
        line = raw.decode("latin-1").rstrip()
        word = "".join(line.split(maxsplit=1)[:1]).upper()
        if word in ("MODEL", "ENDMDL", "TORSDOF", "BEGIN_RES", "END_RES") or (word == "ROOT" and _is_pose(block, kind)):
            if not in_residue and _is_pose(block, kind):
                yield "\n".join([*shared, *block, ""])
            in_residue = word == "BEGIN_RES" or (in_residue and word != "END_RES")
            block, shared = [], [] if word == "MODEL" else shared
        if word == "REMARK" and ("VINA RESULT" in line or "minimizedAffinity" in line):
            shared.append(line)
        else:
            block.append(line)
        if kind == PDB and line[12:16].strip() == "CA" and line[17:20] in AMINO_ACIDS:
            raise LigandError(f"{path}: a ligand needs bond orders, and this file has a protein; give --complex_path")
        if len(block) > MAX_LINES:
            raise LigandError(f"{path}: one molecule takes more than {MAX_LINES:,} lines; is it a ligand?")
    if not in_residue and _is_pose(block, kind):
        yield "\n".join([*shared, *block, ""])


def _is_pose(block: list[str], kind: str) -> bool:
    has_atoms = any(line.startswith(("ATOM", "HETATM")) for line in block)
    return has_atoms and (kind != PDBQT or any(line.startswith("ROOT") for line in block))


def _pdbqt_atoms(text: str) -> list[SiteAtom]:
    atoms = []
    for line in text.splitlines():
        kind = line[76:80].strip()
        if not line.startswith(("ATOM", "HETATM")) or _NO_ATOM.fullmatch(kind):
            continue
        element = 6 if _END_OF_RING.fullmatch(kind) else _AUTODOCK.get(kind, ATOMIC_NUMBER.get(kind.upper(), 0))
        try:
            pos = tuple(float(line[start : start + 8]) for start in (30, 38, 46))
        except ValueError:
            raise StructureError(f"{clean_name(line[:60])!r}: a coordinate is no number") from None
        residue, name = line[17:20].strip(), line[12:16].strip()
        atoms.append(SiteAtom(line[21].strip(), 0, "", residue, name, element, "", 1.0, pos))
    return sorted(atoms, key=lambda atom: atom.element == 1)
