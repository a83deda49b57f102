"""One molecule in the 24 forms in which programs write it: hydrogens, bond orders, formats, charges and order."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from rdkit import Chem
from rdkit.Chem import AllChem

HYDROGENS = ("no", "polar", "all")
# Atoms that lose or gain a proton at pH 7.4, and how many hydrogens that is.
_IONISED = {
    "[OX2H1;$(O-[C,S,P]=O)]": -1,
    "[NX3;+0;!$(N~[!#6;!#1]);!$(N-[!CX4;!#1]);!$(N-[CX4]-[N,O,S,F,P])]": 1,
    "[NX2;H1;$(N=C(-[NX3])-[#6,NX3]);!$(N=C-[#7]-[C,S,P]=[O,S])]": 1,
}


def with_hydrogens(mol: Chem.Mol, which: str) -> Chem.Mol:
    """Heavy atoms first and in their order; Kekulé structure kept where it is."""
    mol = Chem.AddHs(mol, addCoords=True)
    if which == "all":
        return mol
    edited = Chem.RWMol(mol)
    for atom in reversed(list(mol.GetAtoms())):
        if atom.GetAtomicNum() == 1 and (which == "no" or atom.GetNeighbors()[0].GetAtomicNum() == 6):
            edited.RemoveAtom(atom.GetIdx())
    for atom in edited.GetAtoms():
        atom.SetNoImplicit(False)
        if atom.GetAtomicNum() != 7 or not atom.GetIsAromatic():
            atom.SetNumExplicitHs(0)
    if which == "no":  # RDKit needs to know of the hydrogens of pyrroles; files do not say so
        for atom in edited.GetAtoms():
            atom.SetNumExplicitHs(
                mol.GetAtomWithIdx(atom.GetIdx()).GetTotalNumHs(includeNeighbors=True) * atom.GetIsAromatic()
            )
    edited.UpdatePropertyCache(strict=False)
    Chem.SanitizeMol(edited)
    return edited.GetMol()


def ionised(mol: Chem.Mol) -> Chem.Mol:
    """As at pH 7.4, hydrogens in place."""
    mol = Chem.RWMol(Chem.RemoveHs(mol))
    found = [
        (number, change)
        for smarts, change in _IONISED.items()
        for (number,) in mol.GetSubstructMatches(Chem.MolFromSmarts(smarts))
    ]
    for number, change in found:
        atom = mol.GetAtomWithIdx(number)
        atom.SetFormalCharge(change)
        atom.SetNumExplicitHs(0)
    mol.UpdatePropertyCache(strict=False)
    Chem.SanitizeMol(mol)
    return Chem.AddHs(mol, addCoords=True)


def sdf(mol: Chem.Mol, *, aromatic: bool = False, v3000: bool = False) -> str:
    """A record of an SDF; what RDKit adds to aromatic ones so that it finds hydrogens again is taken out."""
    block = Chem.MolToMolBlock(mol, kekulize=not aromatic, forceV3000=v3000)
    groups = ("M  STY", "M  SAL", "M  SDT", "M  SDD", "M  SED", "M  SPA", "M  SMT", "M  SLB", "M  SST")
    lines, inside = [], False
    for line in block.split("\n"):
        inside = inside or line.startswith("M  V30 BEGIN SGROUP")
        if not inside and not line.startswith(groups):
            lines.append(re.sub(r"^(M  V30 COUNTS \d+ \d+) \d+", r"\1 0", line))
        inside = inside and not line.startswith("M  V30 END SGROUP")
    return "\n".join(lines) + "$$$$\n"


def with_old_charges(block: str) -> str:
    """Charges in the column of the atom block alone, as before M  CHG (CTfile formats, 2020)."""
    lines = block.split("\n")
    for line in [line for line in lines if line.startswith("M  CHG")]:
        numbers = [int(word) for word in line.split()[3:]]
        for atom, charge in zip(numbers[::2], numbers[1::2], strict=True):
            row = lines[3 + atom]
            lines[3 + atom] = f"{row[:36]}{4 - charge:>3}{row[39:]}"
        lines.remove(line)
    return "\n".join(lines)


def mol2(mol: Chem.Mol, *, aromatic: bool = True) -> str:
    """With Sybyl types as far as elements go, and no charges."""
    mol = Chem.Mol(mol)
    if not aromatic:
        Chem.Kekulize(mol, clearAromaticFlags=True)
    orders = {"AROMATIC": "ar", "SINGLE": "1", "DOUBLE": "2", "TRIPLE": "3"}
    lines = ["@<TRIPOS>MOLECULE", "test", f" {mol.GetNumAtoms()} {mol.GetNumBonds()} 0 0 0", "SMALL", "NO_CHARGES", ""]
    lines.append("@<TRIPOS>ATOM")
    for atom, (x, y, z) in zip(mol.GetAtoms(), mol.GetConformer().GetPositions().tolist(), strict=True):
        symbol = atom.GetSymbol()
        kind = f"{symbol}.{'ar' if atom.GetIsAromatic() else '3'}" if symbol in ("C", "N", "O", "S", "P") else symbol
        name = f"{symbol}{atom.GetIdx() + 1}"
        lines.append(f"{atom.GetIdx() + 1:>7} {name:<6} {x:>9.4f} {y:>9.4f} {z:>9.4f} {kind:<5} 1 LIG 0.0")
    lines.append("@<TRIPOS>BOND")
    for bond in mol.GetBonds():
        ends = f"{bond.GetBeginAtomIdx() + 1:>5} {bond.GetEndAtomIdx() + 1:>5}"
        lines.append(f"{bond.GetIdx() + 1:>6} {ends} {orders[str(bond.GetBondType())]}")
    return "\n".join([*lines, ""])


def shuffled(mol: Chem.Mol, order: list[int]) -> Chem.Mol:
    """Heavy atoms in another order; hydrogens, which come last, in theirs."""
    return Chem.RenumberAtoms(mol, [*order, *range(len(order), mol.GetNumAtoms())])


def forms(mol: Chem.Mol) -> Iterator[tuple[str, str, str, list[int]]]:
    """(name, file ending, text, place of each of its heavy atoms in the molecule) of the 24.

    Args:
        mol: neutral, sanitised, with coordinates, without hydrogens.
    """
    same = list(range(mol.GetNumAtoms()))
    for which in HYDROGENS:
        some = with_hydrogens(mol, which)
        for aromatic in (False, True):
            kind = f"{which} hydrogens, {'aromatic' if aromatic else 'Kekulé'}"
            yield f"{kind}, V2000", "sdf", sdf(some, aromatic=aromatic), same
            yield f"{kind}, V3000", "sdf", sdf(some, aromatic=aromatic, v3000=True), same
            yield f"{kind}, MOL2", "mol2", mol2(some, aromatic=aromatic), same
    ions = ionised(mol)
    yield "ionised, V2000", "sdf", sdf(ions), same
    yield "ionised, aromatic V3000", "sdf", sdf(ions, aromatic=True, v3000=True), same
    yield "ionised, old charges", "sdf", with_old_charges(sdf(ions)), same
    yield "ionised, MOL2", "mol2", mol2(ions), same
    order = np.random.default_rng(0).permutation(mol.GetNumAtoms()).tolist()
    yield "shuffled, aromatic V2000", "sdf", sdf(shuffled(with_hydrogens(mol, "no"), order), aromatic=True), order
    yield "shuffled, MOL2", "mol2", mol2(shuffled(with_hydrogens(mol, "all"), order)), order


MOLECULES = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "tyramine": "NCCc1ccc(O)cc1",
    "histamine": "NCCc1c[nH]cn1",
    "arginine": "N=C(N)NCCC[C@H](N)C(=O)O",
    "benzamidine": "N=C(N)c1ccccc1",
    "uracil": "O=c1cc[nH]c(=O)[nH]1",
    "cytosine": "Nc1cc[nH]c(=O)n1",
    "adenosine": "Nc1ncnc2c1ncn2[C@@H]1O[C@H](CO)[C@@H](O)[C@H]1O",
    "guanine": "Nc1nc2[nH]cnc2c(=O)[nH]1",
    "hypoxanthine": "Cn1cnc2c(=O)[nH]cnc21",
    "deazaguanine": "Nc1nc2[nH]ccc2c(=O)[nH]1",
    "theophylline": "Cn1c(=O)c2[nH]cnc2n(C)c1=O",
    "caffeine": "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
    "allopurinol": "O=c1[nH]cnc2[nH]ncc12",
    "benzimidazolone": "O=c1[nH]c2ccccc2[nH]1",
    "pyridone": "Cc1ccc[nH]c1=O",
    "4-quinolone": "O=c1cc[nH]c2ccccc12",
    "quinazolinone": "Cc1nc2ccccc2c(=O)[nH]1",
    "phthalhydrazide": "O=c1[nH][nH]c(=O)c2ccccc12",
    "quinoxalinedione": "Cn1c(=O)c(=O)n(C)c2ccccc21",
    "coumarin": "O=c1ccc2ccccc2o1",
    "chromone": "O=c1ccoc2ccccc12",
    "thiazole": "Cc1nc(N)sc1C",
    "oxazole": "Cc1coc(-c2ccccc2)n1",
    "tetrazole": "CCc1nnn[nH]1",
    "triazole": "Cn1cc(CO)nn1",
    "triazolone": "O=c1[nH]cn[nH]1",
    "indole": "OCCc1c[nH]c2ccccc12",
    "azaindole": "c1cnc2[nH]ccc2c1",
    "carbazole": "c1ccc2c(c1)[nH]c1ccccc12",
    "imidazopyridine": "Cc1cn2ccccc2n1",
    "pyrazinium": "C[n+]1ccncc1",
    "thiazolium": "Cc1sc[n+](C)c1C",
    "pyridine oxide": "Cc1cc[n+]([O-])cc1",
    "nitro": "O=[N+]([O-])c1ccccc1F",
    "azide": "[N-]=[N+]=NCCO",
    "sulfonamide": "NS(=O)(=O)c1ccc(Cl)cc1",
    "sulfoxide": "CS(=O)CC[C@H](N)C(=O)O",
    "sulfonic acid": "NCCS(=O)(=O)O",
    "phosphate": "OC[C@@H](O)COP(=O)(O)O",
    "choline": "C[N+](C)(C)CCOP(=O)(O)OCC",
    "thioamide": "CC(=S)Nc1ccccc1Br",
    "nitrile": "N#Cc1ccc(C#C)cc1",
    "boronic acid": "OB(O)c1ccccc1",
    "penicillin": "CC1(C)S[C@@H]2[C@H](NC(C)=O)C(=O)N2[C@H]1C(=O)O",
}


def conformer(smiles: str) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=7) == 0
    return Chem.RemoveHs(mol)
