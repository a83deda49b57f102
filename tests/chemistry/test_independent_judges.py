"""Donors, acceptors and charges beside those of RDKit's feature factory and Dimorphite-DL, with the known differences.

The judges come from other hands: the factory from pharmacophore work (BaseFeatures.fdef of RDKit), Dimorphite-DL from
measured pKa values (doi 10.1186/s13321-019-0336-9). Where they differ from src/chemistry/ligand_typing.py, a pattern
with its reason stands here; a difference without one fails.
"""

from __future__ import annotations

import os

import pytest
from rdkit import Chem, RDConfig
from rdkit.Chem import ChemicalFeatures

from src.chemistry.ligand_typing import heavy_form, ligand_features
from src.graph import FEATURE_COLUMN, MAX_CHARGE
from tests.chemistry.ligand_forms import MOLECULES, conformer

# (family, who alone finds it, pattern whose first atom it is, reason)
DIFFERENCES = [
    ("Donor", "judge", "[OX2H1]-[C,S,P]=O", "the factory sees the neutral acid, we the anion"),
    ("Donor", "judge", "[#7X2H0]=,:[#6,#7]", "the factory counts any amidine-like nitrogen as protonated"),
    ("Donor", "judge", "[NX3H0](-[#6])(-[#6])-[#6]=O", "the factory takes a lactam nitrogen for an amine"),
    ("Donor", "ours", "[n;H0;r5]:[n;r5]", "the hydrogen of an azole may sit on each of its nitrogens"),
    ("Acceptor", "ours", "[nH;r5]", "the same, seen from the nitrogen that is drawn with it"),
    ("Acceptor", "ours", "[O;D1]~[#7+]", "the factory leaves out oxygens of nitro groups and N-oxides"),
    ("Acceptor", "ours", "[N;D1,D2]~[N+]~[N]", "the factory leaves out azides"),
    ("Acceptor", "ours", "[N;D1,D2]=[N+]=[N-]", "the factory leaves out azides"),
    ("Acceptor", "ours", "[S;D1]=[#6]", "the factory leaves out thiocarbonyls"),
    ("Acceptor", "ours", "[N;D1]#[#6]", "the factory leaves out nitriles"),
    ("Acceptor", "judge", "[F]-[#6]", "the factory counts fluorine, which accepts hydrogen bonds rarely"),
]

# NH that Dimorphite-DL takes for acids at pH 7.4, and we do not. Of tetrazoles (pKa 4.9) it is right; which of the
# nitrogens is charged is open, so all of them donate and accept and none is charged. Uracil has a pKa of 9.5.
_WEAK_ACIDS = (
    "[nH;$([nH]:[#6](=O)),$([nH]:[#6]:[#6]:[#6](=O)),$([nH]:[n]:[#6](=O)),$([nH]:[n]:[n]:[n]),$([nH]:[#6]:[n])]"
)


@pytest.fixture(scope="module")
def factory() -> ChemicalFeatures.FreeChemicalFeatureFactory:
    return ChemicalFeatures.BuildFeatureFactory(os.path.join(RDConfig.RDDataDir, "BaseFeatures.fdef"))


def typed(smiles: str) -> tuple[Chem.Mol, dict[str, list[int]]]:
    mol, _ = heavy_form(conformer(smiles))
    features = ligand_features(mol)
    return mol, {name: features[:, column].tolist() for name, column in FEATURE_COLUMN.items()}


def unexplained(mol: Chem.Mol, family: str, side: str, atoms: set[int], used: set[str]) -> set[int]:
    for known, who, pattern, _ in DIFFERENCES:
        if (known, who) == (family, side):
            explained = atoms & {match[0] for match in mol.GetSubstructMatches(Chem.MolFromSmarts(pattern))}
            used |= {pattern} if explained else set()
            atoms = atoms - explained
    return atoms


def test_donors_and_acceptors_are_those_of_the_feature_factory(
    factory: ChemicalFeatures.FreeChemicalFeatureFactory,
) -> None:
    used: set[str] = set()
    agreed = 0
    for name, smiles in MOLECULES.items():
        mol, column = typed(smiles)
        for family in ("Donor", "Acceptor"):
            features = factory.GetFeaturesForMol(mol, includeOnly=family)
            judged = {atom for feature in features for atom in feature.GetAtomIds()}
            ours = {number for number, value in enumerate(column[family.lower()]) if value}
            assert not unexplained(mol, family, "ours", ours - judged, used), (name, family)
            assert not unexplained(mol, family, "judge", judged - ours, used), (name, family)
            agreed += len(ours & judged)
    assert agreed > 100
    assert {pattern for _, _, pattern, _ in DIFFERENCES} == used  # no excuse that nothing needs


def net_charge(mol: Chem.Mol, charges: list[int]) -> int:
    """Of the ion that the typed atoms stand for: each oxygen of an acid and each end of an amidine is typed charged."""
    total = sum(charges)
    for atom in mol.GetAtoms():
        ends = [
            other.GetIdx() for other in atom.GetNeighbors() if charges[other.GetIdx()] < 0 and other.GetDegree() == 1
        ]
        if len(ends) > 1 and atom.GetAtomicNum() in (6, 15, 16):
            total += 2 if atom.GetAtomicNum() == 16 and atom.GetDegree() == 4 else 1
        plus = [other for other in atom.GetNeighbors() if charges[other.GetIdx()] > 0 and other.GetAtomicNum() == 7]
        if atom.GetAtomicNum() == 6 and atom.GetHybridization() == Chem.HybridizationType.SP2 and len(plus) > 1:
            total -= len(plus) - 1
    return total


@pytest.mark.parametrize("smiles", MOLECULES.values(), ids=MOLECULES.keys())
def test_charges_are_those_of_dimorphite(smiles: str) -> None:
    dimorphite = pytest.importorskip("dimorphite_dl", reason="dimorphite-dl is not installed")
    mol, column = typed(smiles)
    ours = net_charge(mol, [value - MAX_CHARGE for value in column["charge"]])
    judged = {
        Chem.GetFormalCharge(Chem.MolFromSmiles(form))
        for form in dimorphite.protonate_smiles(smiles, ph_min=7.4, ph_max=7.4, precision=0.0)
    }
    weak = len(mol.GetSubstructMatches(Chem.MolFromSmarts(_WEAK_ACIDS)))
    assert judged & {ours - count for count in range(weak + 1)}, (ours, judged)
    assert weak or judged == {ours}
