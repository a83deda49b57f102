"""Complexes as programs write them: a protein and a molecule of RDKit as PDB or mmCIF, with what says its bonds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rdkit import Chem
from rdkit.Chem.rdDistGeom import EmbedMolecule

from tests.complexes import RESIDUES, pdb_text

ORDERS = {1.0: "SING", 2.0: "DOUB", 3.0: "TRIP"}
COLUMNS = (
    "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id label_seq_id auth_seq_id "
    "pdbx_PDB_ins_code Cartn_x Cartn_y Cartn_z occupancy B_iso_or_equiv auth_asym_id pdbx_PDB_model_num"
)


def molecule(smiles: str, *, order: Sequence[int] | None = None) -> Chem.Mol:
    """With hydrogens and a shape, the heavy atoms in another order where one is given."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert EmbedMolecule(mol, randomSeed=7) == 0
    rest = range(len(order or ()), mol.GetNumAtoms())
    mol = Chem.RenumberAtoms(mol, [*(order or ()), *rest])
    Chem.Kekulize(mol, clearAromaticFlags=True)
    return mol


def ligand_lines(
    mol: Chem.Mol, *, name: str = "LIG", chain: str = "B", number: int = 1, b_factor: float = 50.0, serial: int = 5000,
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0), altloc: str = " ", occupancy: float = 1.0,
) -> list[str]:  # fmt: skip
    """HETATM records of all atoms; element and number are their names."""
    lines = []
    for atom, pos in zip(mol.GetAtoms(), mol.GetConformer().GetPositions(), strict=True):
        x, y, z = (a + b for a, b in zip(pos, shift, strict=True))
        symbol = atom.GetSymbol().upper()
        atom_name = f"{symbol}{atom.GetIdx() + 1}"
        lines.append(
            f"HETATM{serial + atom.GetIdx():>5} {atom_name:<4}{altloc}{name:>3} {chain}{number:>4}"
            f"    {x:8.3f}{y:8.3f}{z:8.3f}{occupancy:6.2f}{b_factor:6.2f}          {symbol:>2}"
        )
    return lines


def conect_lines(mol: Chem.Mol, *, orders: bool, serial: int = 5000) -> list[str]:
    """Both ways, once or as often as the order says."""
    lines = []
    for bond in mol.GetBonds():
        count = int(bond.GetBondTypeAsDouble()) if orders else 1
        ends = bond.GetBeginAtomIdx() + serial, bond.GetEndAtomIdx() + serial
        lines += [f"CONECT{one:>5}" + f"{other:>5}" * count for one, other in (ends, ends[::-1])]
    return lines


def complex_text(*ligands: Iterable[str], residues: list | None = None, more: Iterable[str] = ()) -> str:
    """A PDB file: the small protein of tests/complexes.py, ligands and what follows them."""
    protein = pdb_text(RESIDUES if residues is None else residues).removesuffix("END\n")
    return protein + "\n".join([*(line for lines in ligands for line in lines), *more, "END", ""])


def without_hydrogens(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if line[76:78].strip() != "H"]


def as_mmcif(pdb: str, tables: str = "", *, labels: bool = False) -> str:
    """The atoms of a PDB text as mmCIF.

    Args:
        labels: ligands have chains of their own among the label_ columns.
    """
    rows = []
    for line in pdb.splitlines():
        if line.startswith(("ATOM", "HETATM")):
            chain, number = line[21].strip() or ".", line[22:26].strip()
            is_hetero = line.startswith("HETATM")
            insertion = line[26].strip() or "?"
            label = f"L{number}" if labels and is_hetero else chain
            rows.append(
                " ".join([
                    line[:6].strip(), line[6:11].strip(), line[76:78].strip(), line[12:16].strip(),
                    line[16].strip() or ".", line[17:20].strip(), label, "." if is_hetero else number, number,
                    insertion, line[30:38], line[38:46], line[46:54], line[54:60], line[60:66], chain, "1",
                ])
            )  # fmt: skip
    head = "\n".join(f"_atom_site.{name}" for name in COLUMNS.split())
    return f"data_x\n{tables}loop_\n{head}\n" + "\n".join(rows) + "\n#\n"


def component_bonds(mol: Chem.Mol, name: str = "LIG") -> str:
    """A _chem_comp_bond table, after one of another component."""
    rows = ["ALA N CA SING"]
    for bond in mol.GetBonds():
        ends = [f"{a.GetSymbol().upper()}{a.GetIdx() + 1}" for a in (bond.GetBeginAtom(), bond.GetEndAtom())]
        rows.append(f"{name} {ends[0]} {ends[1]} {ORDERS[bond.GetBondTypeAsDouble()]}")
    head = "\n".join(f"_chem_comp_bond.{column}" for column in ("comp_id", "atom_id_1", "atom_id_2", "value_order"))
    return f"loop_\n{head}\n" + "\n".join(rows) + "\n#\n"
