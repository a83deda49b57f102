"""Attribution -> the text of files that other programs open: SDF, CSV rows, PDB with a B-factor column, PyMOL."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence

import numpy as np
from rdkit import Chem, rdBase

from src.chemistry.atoms import Atoms, ResidueId, clean_name
from src.chemistry.residues import SYMBOLS
from src.explanation.attribution import Attribution
from src.graph import FEATURE_COLUMN, Side

RESIDUE_COLUMNS = ("chain", "residue", "number", "contribution_pK", "contacts", "closest_A", "kinds")
ATOM_PROPERTY = "pK_contribution"
ON_A_LINE = 15  # values; a line of an SDF has at most 200 characters

MAX_B = 99.99  # six columns of a PDB line hold -99.99 with a space before it
MIN_PDB, MAX_PDB = -999.0, 9999.0  # Å, and residue numbers: what the columns of a PDB line hold
CHAINS = string.ascii_uppercase + string.ascii_lowercase + string.digits


def sdf_text(attribution: Attribution) -> str:
    """One record with the contributions as an atom property list, which RDKit reads back onto the atoms.

    https://www.rdkit.org/docs/RDKit_Book.html#atom-properties-and-sdf-files
    """
    mol = Chem.Mol(attribution.mol)
    mol.SetProp("_Name", attribution.name)
    values = [f"{pk:.6f}" for pk in attribution.of_ligand_atoms()]
    lines = [" ".join(values[start : start + ON_A_LINE]) for start in range(0, len(values), ON_A_LINE)]
    mol.SetProp(f"atom.dprop.{ATOM_PROPERTY}", "\n".join(lines))
    mol.SetProp("pK", f"{attribution.pk:.6f}")
    mol.SetProp("pK_constant", f"{attribution.constant:.6f}")
    with rdBase.BlockLogs():
        return Chem.SDWriter.GetText(mol, kekulize=_can_kekulise(mol))


def residue_rows(attribution: Attribution) -> list[tuple[object, ...]]:
    """The rows under RESIDUE_COLUMNS, the largest contribution first; the number has its insertion code."""
    return [
        (
            clean_name(share.residue.chain),
            clean_name(share.residue.name),
            # A number and not its text: a spreadsheet must not take -5 for a formula.
            clean_name(f"{share.residue.number}{share.residue.insertion}")
            if share.residue.insertion
            else share.residue.number,
            round(share.pk, 6),
            share.num_contacts,
            round(share.closest, 2),
            "; ".join(share.kinds),
        )
        for share in attribution.residue_shares()
    ]


def b_factor_scale(attribution: Attribution) -> int:
    """B-factor units for one pK: the largest power of ten with which the column holds every number."""
    values = np.concatenate([attribution.of_ligand_atoms(), attribution.of_residues()])
    largest = np.abs(values).max(initial=0.0)
    return next((scale for scale in (1000, 100, 10) if largest * scale <= MAX_B), 1)


def pdb_text(attribution: Attribution) -> str:
    """The ligand and its pocket; the B-factor of a ligand atom is its own contribution, that of a pocket atom its
    residue's."""
    scale = b_factor_scale(attribution)
    ligand, pocket = attribution.ligand, attribution.pocket
    chains, remarks = _chain_letters(pocket.residue_ids)
    ids = [_fitting(residue, chains, remarks) for residue in pocket.residue_ids]
    origin = np.zeros(3)
    everything = np.concatenate([ligand.pos, pocket.pos])
    if everything.min() < MIN_PDB or everything.max() > MAX_PDB:
        origin = np.round(ligand.pos.mean(axis=0), 3)
        remarks.append("COORDINATES DO NOT FIT INTO A PDB FILE: SHIFTED BY " + " ".join(f"{-x:.3f}" for x in origin))
    remarks[:0] = [
        f"B-FACTOR = {scale} X CONTRIBUTION IN PK UNITS, LIMITED TO {MAX_B}",
        "LIGAND: CONTRIBUTION OF THE ATOM. POCKET: SUM OF THE WHOLE RESIDUE, ON EACH OF ITS ATOMS",
        f"PREDICTED PK {attribution.pk:.3f} = CONSTANT {attribution.constant:.3f} + SUM {attribution.total:.3f}",
    ]
    lines = [f"REMARK 250 {remark}" for remark in remarks]
    of_residues, of_atoms = attribution.of_residues(), attribution.of_ligand_atoms()
    lines += _atom_lines(pocket, ids, scale * of_residues[pocket.residue_index], origin, first=1)
    lines.append("TER")
    first = len(pocket) + 1
    lines += _atom_lines(ligand, [_ligand_id(chains)], scale * of_atoms, origin, first=first)
    lines += [f"CONECT{first + i:>5}{first + j:>5}" for i, j in ligand.bonds.T.tolist()]
    return "\n".join([*lines, "END", ""])


def pymol_text(attribution: Attribution) -> str:
    """A script for PyMOL that loads complex.pdb beside it; no name of a user's file stands in it."""
    scale = b_factor_scale(attribution)
    chain, name, number, _ = _ligand_id(_chain_letters(attribution.pocket.residue_ids)[0])
    ligand = f"(chain {chain} and resn {name} and resi {number})"  # a cofactor may be called LIG too
    values = np.concatenate([attribution.of_ligand_atoms(), attribution.of_residues()])
    most = max(min(scale * float(np.abs(values).max(initial=0.0)), MAX_B), 0.01)
    return f"""\
# Contributions to the predicted pK. Run it in this folder: pymol complex.pml
# Blue raises the pK, orange lowers it; the B-factor is {scale} x the contribution in pK units.
load complex.pdb, complex
hide everything, complex
bg_color white
show cartoon, complex and polymer
show lines, complex and not {ligand}
show nonbonded, complex and not {ligand}
show sticks, complex and {ligand}
spectrum b, tv_orange white marine, complex, minimum=-{most:.2f}, maximum={most:.2f}
label complex and name CA and (b > {most / 3:.2f} or b < -{most / 3:.2f}), "%s%s" % (resn, resi)
zoom complex and {ligand}, 6
"""


def _can_kekulise(mol: Chem.Mol) -> bool:
    try:
        Chem.Kekulize(Chem.Mol(mol))
    except ValueError:  # RDKit's KekulizeException: a molecule that could be sanitised only in part
        return False
    return True


def _chain_letters(residues: Sequence[ResidueId]) -> tuple[dict[str, str], list[str]]:
    """A letter for each chain, its own where it has one, and remarks on the others."""
    names = list(dict.fromkeys(residue.chain for residue in residues))
    letters = {name: name for name in names if len(name) == 1 and name in CHAINS} | {"": " "}
    free: Iterator[str] = (letter for letter in CHAINS if letter not in letters)
    remarks = []
    for name in names:
        if name not in letters:
            letters[name] = next(free, "?")
            remarks.append(f"CHAIN {letters[name]} IS CHAIN '{clean_name(name)}' OF THE FILE")
    return letters, remarks


def _ligand_id(chains: dict[str, str]) -> ResidueId:
    """Where complex.pdb has the ligand: in a chain that the pocket does not use, capitals from Z down first."""
    order = [*reversed(CHAINS[:26]), *CHAINS[26:]]
    return ResidueId(next((letter for letter in order if letter not in chains.values()), "Z"), "LIG", 1, "")


def _fitting(residue: ResidueId, chains: dict[str, str], remarks: list[str]) -> ResidueId:
    """The residue with the names and the number that a PDB line can hold."""
    number, name = residue.number, clean_name(residue.name)
    if not MIN_PDB <= number <= MAX_PDB:
        number %= 10_000
    fitting = ResidueId(chains[residue.chain], name[:3], number, clean_name(residue.insertion)[:1])
    if (fitting.name, fitting.number) != (name, residue.number):
        remarks.append(f"{fitting.name}{fitting.number} IS {name}{residue.number} OF THE FILE")
    return fitting


def _atom_lines(
    atoms: Atoms, residues: Sequence[ResidueId], b: np.ndarray, origin: np.ndarray, *, first: int
) -> Iterator[str]:
    """https://www.wwpdb.org/documentation/file-format-content/format33/sect9.html#ATOM"""
    for number, (name, place, features) in enumerate(
        zip(atoms.atom_names, atoms.residue_index.tolist(), atoms.features, strict=True)
    ):
        residue, (x, y, z) = residues[place], atoms.pos[number] - origin
        record = "ATOM" if features[FEATURE_COLUMN["side"]] == Side.PROTEIN else "HETATM"
        symbol = SYMBOLS[features[FEATURE_COLUMN["element"]]].upper().replace("*", "X")
        padded = name[:4] if len(symbol) == 2 or len(name) > 3 else f" {name}"
        yield (
            f"{record:<6}{first + number:>5} {padded:<4} {residue.name:>3} {residue.chain}{residue.number:>4}"
            f"{residue.insertion:<1}   {x:8.3f}{y:8.3f}{z:8.3f}{1.0:6.2f}{np.clip(b[number], -MAX_B, MAX_B):6.2f}"
            f"          {symbol:>2}"
        )
