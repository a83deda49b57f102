"""The built-in data set: synthetic protein-ligand complexes in the PDBbind layout, written on first use."""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path

import numpy as np
from rdkit import Chem
from scipy.spatial.distance import cdist

from src.chemistry.contact_energy import GAUSS, HBOND, HYDROPHOBIC, REPULSION
from src.data.demo_poses import PK_FAR, PK_PER_KCAL, DemoPose, draw_pose
from src.system.errors import UserError

log = logging.getLogger(__name__)

DEMO_VERSION = "1"  # changes with anything that changes the files
FILE_ENDINGS = ("protein.pdb", "pocket.pdb", "ligand.sdf", "ligand.mol2")
MAX_COMPLEXES = 999
PK_MIN, PK_MAX = 2.0, 12.0
PK_NOISE = 0.25  # standard deviation of the error added to each label, that of a good assay
POCKET_RADIUS = 10.0  # Å; _pocket.pdb holds the residues with an atom this near the ligand, as in PDBbind


class DemoError(UserError):
    """The demo set cannot be written as asked."""


def write_demo(folder: Path, *, num_complexes: int = 400, seed: int = 0) -> Path:
    """Write the demo set into folder, unless it is there already, and return its index file.

    The same arguments and the same version of RDKit give the same bytes. Complex n is the same in every set
    with the same seed, however many complexes there are.

    Args:
        folder: becomes the dataset_path: `index/INDEX_demo.2020R1.lst` and one folder per complex.
        num_complexes: from 1 to 999.

    Raises:
        DemoError: num_complexes is out of range, or folder is a file.
    """
    if not 1 <= num_complexes <= MAX_COMPLEXES:
        raise DemoError(f"num_complexes = {num_complexes} must be from 1 to {MAX_COMPLEXES}")
    if folder.exists() and not folder.is_dir():
        raise DemoError(f"{folder} is a file; give a folder for the demo set")
    codes = [f"d{number:03d}" for number in range(1, num_complexes + 1)]
    index_file, stamp_file = folder / "index" / "INDEX_demo.2020R1.lst", folder / "demo.json"
    stamp = json.dumps({"version": DEMO_VERSION, "num_complexes": num_complexes, "seed": seed})
    files = [index_file, *(folder / code / f"{code}_{ending}" for code in codes for ending in FILE_ENDINGS)]
    if stamp_file.is_file() and stamp_file.read_bytes() == stamp.encode() and all(f.is_file() for f in files):
        return index_file
    log.info("writing %d synthetic complexes to %s", num_complexes, folder)
    # A set that is being rewritten must not pass for whole if this run is cut short.
    stamp_file.unlink(missing_ok=True)
    index_file.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, code in enumerate(codes):
        rng = np.random.default_rng([seed, number])
        pose = draw_pose(rng)
        _write_complex(folder / code, code, pose, with_hydrogens=number % 2 == 0)
        lines.append(_index_line(rng, code, pose))
    _write(index_file, _index_header(num_complexes) + "".join(lines))
    _write(folder / "demo.tmp", stamp)
    os.replace(folder / "demo.tmp", stamp_file)
    return index_file


def _index_header(num_complexes: int) -> str:
    return f"""\
# {num_complexes} synthetic protein-ligand complexes, lines as in the PDBbind v.2020R1 general index
# NOT MEASURED: RDKit molecules packed in peptides; the label is computed from the contacts of the pose
# pK = {PK_FAR} - {PK_PER_KCAL} E with noise of {PK_NOISE} pK, limited to [{PK_MIN:g}, {PK_MAX:g}]
# E in kcal/mol is the sum of {GAUSS} exp(-(d/0.5)^2) + {REPULSION} min(d,0)^2 + {HYDROPHOBIC} hydrophobic(d)
# + {HBOND} hbond(d) over pairs of heavy atoms, with d = distance - radii in A
# terms and weights of AutoDock Vina, doi 10.1002/jcc.21334
# code, resolution, year, binding data, reference, ligand name
"""


def _index_line(rng: np.random.Generator, code: str, pose: DemoPose) -> str:
    pk = min(max(pose.pk + rng.normal(scale=PK_NOISE), PK_MIN), PK_MAX)
    affinity = f"{rng.choice(['Kd', 'Ki'])}={_molar_text(pk)}"
    resolution, year = rng.uniform(1.2, 2.8), rng.integers(1990, 2020)
    return f"{code}  {resolution:.2f}  {year}  {affinity:<14}  // {code}.pdf ({pose.ligand_name})\n"


def _molar_text(pk: float) -> str:
    """10^-pk mol/L with four significant digits, in the largest unit that leaves a number of at least 1."""
    thousands = math.ceil(pk / 3)
    return f"{10 ** (3 * thousands - pk):.4g}{('M', 'mM', 'uM', 'nM', 'pM')[thousands]}"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="ascii", newline="\n")


def _write_complex(folder: Path, code: str, pose: DemoPose, *, with_hydrogens: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pose.ligand.SetProp("_Name", f"{code}_ligand")
    protein, pocket = _pdb_lines(pose, with_hydrogens)
    texts = (
        f"HEADER    {code.upper()}_PROTEIN\n{protein}END\n",
        f"HEADER    {code.upper()}_POCKET\n{pocket}END\n",
        f"{Chem.MolToMolBlock(pose.ligand)}\n$$$$\n",
        _mol2(pose.ligand, pose.ligand_name),
    )
    for ending, text in zip(FILE_ENDINGS, texts, strict=True):
        _write(folder / f"{code}_{ending}", text)


def _pdb_lines(pose: DemoPose, with_hydrogens: bool) -> tuple[str, str]:
    """ATOM and HETATM lines (PDB format 3.3) of the protein and, a subset of them, of the pocket."""
    is_heavy = [atom.GetAtomicNum() > 1 for atom in pose.ligand.GetAtoms()]
    ligand_pos = pose.ligand.GetConformer().GetPositions()[is_heavy]
    protein, pocket = [], []
    first = 1
    for part, pos in pose.parts:
        record = "HETATM" if part.is_hetero else "ATOM"
        near = cdist(part.sites(pos).pos, ligand_pos).min(1) <= POCKET_RADIUS
        near_residues = {part.labels[index][0] for index in np.flatnonzero(near)}
        # Hydrogens come after all heavy atoms in a part, but with their residue in a file.
        for index in sorted(range(len(pos)), key=lambda index, part=part: part.labels[index][0]):
            number, residue, name, element = part.labels[index]
            if element == "H" and not with_hydrogens:
                continue
            x, y, z = pos[index]
            line = (
                f"{record:<6}{len(protein) + 1:>5} {name:<4} {residue:>3} A{first + number - 1:>4}    "
                f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00 20.00          {element:>2}\n"
            )
            protein.append(line)
            if number in near_residues:
                pocket.append(line)
        # A gap in the numbers says that the next peptide is not bonded to this one.
        first += part.labels[-1][0] + (0 if part.is_hetero else 5)
    return "".join(protein), "".join(pocket)


def _mol2(mol: Chem.Mol, ligand_name: str) -> str:
    """A molecule with hydrogens as Tripos MOL2 text; RDKit reads that format and does not write it."""
    # RDKit cannot read aromatic bonds of every ring with nitrogen, so they are written as single and double.
    mol = Chem.Mol(mol)
    Chem.Kekulize(mol, clearAromaticFlags=True)
    rows = [f"@<TRIPOS>MOLECULE\n{mol.GetProp('_Name')}\n{mol.GetNumAtoms()} {mol.GetNumBonds()} 1 0 0"]
    rows.append("SMALL\nNO_CHARGES\n\n@<TRIPOS>ATOM")
    coordinates = mol.GetConformer().GetPositions()
    for number, (atom, (x, y, z)) in enumerate(zip(mol.GetAtoms(), coordinates, strict=True), 1):
        name = f"{atom.GetSymbol()}{number}"
        rows.append(f"{number:>7} {name:<6}{x:>10.4f}{y:>10.4f}{z:>10.4f} {_sybyl_type(atom):<6}1 {ligand_name}")
    rows.append("@<TRIPOS>BOND")
    for number, bond in enumerate(mol.GetBonds(), 1):
        ends = f"{bond.GetBeginAtomIdx() + 1:>6}{bond.GetEndAtomIdx() + 1:>6}"
        rows.append(f"{number:>6}{ends} {bond.GetBondTypeAsDouble():.0f}")
    rows.append(f"@<TRIPOS>SUBSTRUCTURE\n{1:>6} {ligand_name} 1")
    return "\n".join(rows) + "\n"


def _sybyl_type(atom: Chem.Atom) -> str:
    """SYBYL atom type (Tripos, Mol2 File Format) of an atom in a molecule without aromatic bonds."""
    symbol = atom.GetSymbol()
    if symbol not in ("C", "N", "O", "S", "P"):
        return symbol
    if symbol == "N" and atom.GetTotalValence() == 4 and atom.GetDegree() == 4:
        return "N.4"
    orders = sorted(bond.GetBondTypeAsDouble() for bond in atom.GetBonds())
    if symbol == "S" and orders.count(2) > 0:
        return "S.o2" if orders.count(2) == 2 else "S.o"
    if symbol == "P":
        return "P.3"
    return f"{symbol}.{4 - int(orders[-1])}"
