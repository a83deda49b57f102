"""Synthetic poses for the built-in data set: a drug-like ligand packed in peptides -> a pK from its contacts.

RDKit gives ligands and peptides a geometry. The pK has no term of the ligand alone (`interaction_energy`),
so the same ligand gets labels that differ by orders of magnitude: a model has to read the structure.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from rdkit import Chem
from rdkit.Chem.rdDistGeom import EmbedMultipleConfs, ETKDGv3
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from src.chemistry.contact_energy import RADIUS, Flags, Floats, Sites, can_bond, classify, interaction_energy

# pK = PK_FAR - PK_PER_KCAL * energy. In equilibrium the factor is 1 / (RT ln 10) = 0.73; these pockets
# enclose the ligand loosely, and only a larger factor spreads the labels over the range of PDBbind.
PK_FAR, PK_PER_KCAL = 3.0, 2.6

TOUCHING = (2, 7)  # peptides in contact with the ligand
MAX_TRIALS = 40  # poses tried for each of the best-packed peptides; the loosest keep their first
GAP = (-0.35, 0.15)  # Å between the surfaces of the ligand and of what touches it
MIN_SEPARATION = 3.3  # Å between heavy atoms of different parts
CONFORMERS = 2  # geometries per ligand

# Drugs, fragments and metabolites of 8 to 33 heavy atoms.
SMILES = """
CC(=O)Oc1ccccc1C(=O)[O-] CC(=O)Nc1ccc(O)cc1 CC(C)Cc1ccc(C(C)C(=O)[O-])cc1 CN1C=NC2=C1C(=O)N(C)C(=O)N2C
COc1ccc2cc(ccc2c1)C(C)C(=O)[O-] OC(=O)c1ccncc1 NS(=O)(=O)c1ccc(Cl)cc1 NC(=[NH2+])c1ccccc1
CC(=O)Nc1nnc(S(N)(=O)=O)s1 NS(=O)(=O)c1cc(C(=O)[O-])c(NCc2ccco2)cc1Cl OC(=O)Cc1ccccc1Nc1c(Cl)cccc1Cl
CC1(C)Oc2ccc(C#N)cc2C(N2CCCC2=O)C1O C[NH+](C)CCC=C1c2ccccc2CCc2ccccc12
C[NH2+]CCC(Oc1ccc(C(F)(F)F)cc1)c1ccccc1 CC(C)[NH2+]CC(O)COc1cccc2ccccc12 CC(C)[NH2+]CC(O)COc1ccc(CC(N)=O)cc1
Cc1ccc(-c2cc(C(F)(F)F)nn2-c2ccc(S(N)(=O)=O)cc2)cc1 CN1C(=O)CN=C(c2ccccc2)c2cc(Cl)ccc21
OC1N=C(c2ccccc2Cl)c2cc(Cl)ccc2NC1=O Clc1ccc(C(c2ccccc2)N2CCNCC2)cc1
COc1cc2ncnc(Nc3ccc(F)c(Cl)c3)c2cc1OCCCN1CCOCC1 C#Cc1cccc(Nc2ncnc3cc(OCCOC)c(OCCOC)cc23)c1
CNC(=O)c1cc(Oc2ccc(NC(=O)Nc3ccc(Cl)c(C(F)(F)F)c3)cc2)ccn1 Nc1ncnc2c1ncn2C1OC(CO)C(O)C1O
O=c1[nH]c(=O)n(C2CC(O)C(CO)O2)cc1F Cc1cn(C2CC(N=[N+]=[N-])C(CO)O2)c(=O)[nH]c1=O Nc1nc2c(ncn2COCCO)c(=O)[nH]1
Nc1ccc(S(=O)(=O)Nc2ncccn2)cc1 Cc1cc(NS(=O)(=O)c2ccc(N)cc2)no1 COc1cc(Cc2cnc(N)nc2N)cc(OC)c1OC
O=C([O-])c1cn(C2CC2)c2cc(N3CC[NH2+]CC3)c(F)cc2c1=O OC(Cn1cncn1)(Cn1cncn1)c1ccc(F)cc1F
Clc1ccccc1C(c1ccccc1)(c1ccccc1)n1ccnc1 COc1ccc2[nH]cc(CCNC(C)=O)c2c1 NCCc1c[nH]c2ccc(O)cc12
[NH3+]CCc1ccc(O)c(O)c1 CC([NH3+])Cc1ccccc1 [NH3+]C(Cc1c[nH]c2ccccc12)C(=O)[O-]
[NH3+]C(Cc1ccc(O)c(I)c1)C(=O)[O-] CN1CCCC1c1cccnc1 O=C(c1cccnc1)NN NC(=O)c1cnccn1 CC(=O)c1ccc(Br)cc1
Brc1ccc2[nH]ccc2c1 Oc1cccc(Br)c1 Clc1ccc2[nH]ncc2c1 c1ccc2[nH]cnc2c1 Nc1nc2ccccc2s1 O=C1NCc2ccccc21
Cc1nc2ccccc2[nH]1 OCc1ccc(F)cc1 FC(F)(F)c1cccc(CN2CCNCC2)c1 NCc1ccc(Cl)c(Cl)c1 O=S(=O)(c1ccccc1)N1CCOCC1
O=C(NC1CCCCC1)c1ccccc1Br O=C(Nc1ccccc1)c1ccc(Cl)cc1 COc1ccc(C(=O)N2CCCC2)cc1 Cc1ccsc1C(=O)NCc1ccccc1
CC(C)(C)NCC(O)c1ccc(O)c(CO)c1 CC12CCC3c4ccc(O)cc4CCC3C1CCC2O CC12CCC(=O)C=C1CCC1C2CCC2(C)C(O)CCC12
OCC1OC(O)C(O)C(O)C1O OCC1OC(Oc2ccc([N+](=O)[O-])cc2)C(O)C(O)C1O CC(O)C(=O)NCC1CCC(C(=O)[O-])CC1
O=P([O-])([O-])OCc1ccccc1 Nc1ncnc2c1ncn2CCOCP(=O)([O-])[O-] NC(=[NH2+])NCCCC(NC(=O)c1ccccc1)C(N)=O
CC(C)CC(NC(C)=O)C(=O)NCC(=O)[O-] O=C1c2ccccc2C(=O)N1CCc1ccccc1 Oc1cc(O)c2c(c1)OC(c1ccc(O)c(O)c1)C(O)C2
O=c1cc(-c2ccccc2)oc2cc(O)cc(O)c12 COc1cc(C=CC(=O)CC(=O)C=Cc2ccc(O)c(OC)c2)ccc1O Oc1ccc(C=Cc2cc(O)cc(O)c2)cc1
CC(=O)CC(c1ccccc1)c1c(O)c2ccccc2oc1=O CCOC(=O)C1=C(C)NC(C)=C(C(=O)OC)C1c1cccc([N+](=O)[O-])c1
CCCCc1nc(Cl)c(CO)n1Cc1ccc(-c2ccccc2-c2nn[nH]n2)cc1 CSc1ccc(C(=O)c2ccc(F)cc2)cc1
CS(=O)(=O)c1ccc(C2=C(c3ccccc3)C(=O)OC2)cc1 CC(C)n1c(C=CC(O)CC(O)CC(=O)[O-])c(-c2ccc(F)cc2)c2ccccc12
CCCCCCCC(=O)[O-] CCCCCCc1ccc(O)cc1O CC(C)CCCC(C)O
"""


@dataclass(frozen=True)
class Part:
    """A peptide, ion or water around the origin: m atoms, of which the first n are the heavy ones."""

    pos: Floats  # [m, 3], Å
    labels: tuple[tuple[int, str, str, str], ...]  # m of (residue number from 1, residue name, atom name, element)
    radius: Floats  # [n], Å
    classes: Flags  # [3, n]: hydrophobic, donor, acceptor

    @property
    def is_hetero(self) -> bool:
        return self.labels[0][1] in ("ZN", "HOH")

    def sites(self, pos: Floats) -> Sites:
        return Sites(pos[: len(self.radius)], self.radius, *self.classes)


@dataclass(frozen=True)
class DemoPose:
    """A molecule with one conformer, and the parts around it with their positions."""

    ligand: Chem.Mol
    ligand_name: str
    parts: list[tuple[Part, Floats]]
    pk: float  # label before noise and limits


def _single_atom(residue: str, name: str, element: str, *, acceptor: bool) -> Part:
    classes = np.array([[False], [True], [acceptor]])
    return Part(np.zeros((1, 3)), ((1, residue, name, element),), np.array([RADIUS[element]]), classes)


ZINC = _single_atom("ZN", "ZN  ", "ZN", acceptor=False)  # metals are donors, as in Vina
WATER = _single_atom("HOH", " O  ", "O", acceptor=True)


def draw_pose(rng: np.random.Generator) -> DemoPose:
    """Draw a ligand and pack parts around it.

    How many peptides touch the ligand and how well they are packed is drawn without regard to the ligand, so
    that neither its size nor its chemistry gives the label away.
    """
    number = rng.integers(len(_ligands()))
    mol = Chem.Mol(_ligands()[number], False, int(rng.integers(CONFORMERS)))
    radius, classes = classify(mol)
    pos = Rotation.random(None, rng).apply(mol.GetConformer().GetPositions())
    pos = pos - pos[: len(radius)].mean(0)
    ligand = Sites(pos[: len(radius)], radius, *classes)
    parts: list[tuple[Part, Floats]] = []
    if rng.random() < 0.1 and ligand.acceptor.any():
        toward = rng.choice(ligand.pos[ligand.acceptor])
        _add(parts, ZINC, _slide(ligand, ZINC.pos, ZINC, toward, gap=-0.1))
    num_trials = round(MAX_TRIALS ** rng.random())
    for _ in range(rng.integers(*TOUCHING, endpoint=True)):
        part = _peptides()[rng.integers(len(_peptides()))]
        _add(parts, part, _dock(rng, ligand, part, parts, num_trials))
    pk = PK_FAR - PK_PER_KCAL * sum(interaction_energy(ligand, part.sites(at)) for part, at in parts)
    # What follows is too far away for the label, or water, which a setting may leave out of the graphs.
    outer = [(_peptides()[i], (7, 14)) for i in rng.integers(len(_peptides()), size=rng.integers(4, 9))]
    for part, gaps in [*outer, *[(WATER, (0, 3))] * rng.integers(5)]:
        turned = Rotation.random(None, rng).apply(part.pos)
        _add(parts, part, _slide(ligand, turned, part, rng.normal(size=3), gap=rng.uniform(*gaps)))
    shift = rng.uniform(-30, 30, size=3)
    mol.GetConformer().SetPositions(pos + shift)
    parts.sort(key=lambda placed: placed[0].is_hetero)
    return DemoPose(mol, f"L{number + 1:02d}", [(part, at + shift) for part, at in parts], pk)


@cache
def _ligands() -> tuple[Chem.Mol, ...]:
    return tuple(_embed(Chem.MolFromSmiles(smiles), CONFORMERS) for smiles in SMILES.split())


@cache
def _peptides() -> tuple[Part, ...]:
    """28 dipeptides and 28 tripeptides; each of the twenty amino acids occurs seven times."""
    rng = np.random.default_rng(0)
    letters = "".join("".join(rng.permutation(list("ACDEFGHIKLMNPQRSTVWY"))) for _ in range(7))
    ends = itertools.accumulate([2, 3] * 28, initial=0)
    return tuple(_peptide(letters[start:end]) for start, end in itertools.pairwise(ends))


def _embed(mol: Chem.Mol, count: int) -> Chem.Mol:
    parameters = ETKDGv3()
    parameters.randomSeed = 7
    mol = Chem.AddHs(mol, addResidueInfo=mol.GetAtomWithIdx(0).GetPDBResidueInfo() is not None)
    found = EmbedMultipleConfs(mol, count, parameters)
    assert len(found) == count, f"no geometry for {Chem.MolToSmiles(mol)}"
    return mol


def _peptide(sequence: str) -> Part:
    mol = _embed(Chem.MolFromSequence(sequence), 1)
    labels = []
    for atom in mol.GetAtoms():
        about = atom.GetPDBResidueInfo()
        name = about.GetName()
        if about.GetResidueName() == "ILE":  # RDKit bonds CD1 to CG2; the PDB's component bonds it to CG1
            name = {" CG1": " CG2", " CG2": " CG1"}.get(name, name)
        labels.append((about.GetResidueNumber(), about.GetResidueName(), name, atom.GetSymbol()))
    # Without OXT and its hydrogen the part ends as a residue in the middle of a chain does.
    end = next(atom for atom in mol.GetAtoms() if labels[atom.GetIdx()][2] == " OXT")
    dropped = {end.GetIdx(), *(a.GetIdx() for a in end.GetNeighbors() if a.GetSymbol() == "H")}
    kept = [index for index in range(mol.GetNumAtoms()) if index not in dropped]
    radius, classes = classify(mol)
    heavy = [index for index in kept if index < len(radius)]
    pos = mol.GetConformer().GetPositions()
    return Part(pos[kept] - pos[heavy].mean(0), tuple(labels[i] for i in kept), radius[heavy], classes[:, heavy])


def _dock(
    rng: np.random.Generator, ligand: Sites, part: Part, parts: list[tuple[Part, Floats]], num_trials: int
) -> Floats | None:
    """Positions [m, 3] of the pose with the lowest energy that a random walk of num_trials poses finds."""
    best, best_energy = None, math.inf
    turn, toward = Rotation.random(None, rng), _unit(rng.normal(size=3))
    for _ in range(num_trials):
        if best is None:
            new_turn, new_toward = Rotation.random(None, rng), rng.normal(size=3)
        else:
            new_turn = Rotation.from_rotvec(rng.normal(scale=0.35, size=3)) * turn
            new_toward = toward + rng.normal(scale=0.35, size=3)
        pos = _slide(ligand, new_turn.apply(part.pos), part, new_toward, gap=rng.uniform(*GAP))
        if pos is not None and _is_free(parts, part, pos):
            energy = interaction_energy(ligand, part.sites(pos))
            if energy < best_energy:
                best, best_energy, turn, toward = pos, energy, new_turn, _unit(new_toward)
    return best


def _slide(ligand: Sites, pos: Floats, part: Part, toward: Floats, gap: float) -> Floats | None:
    """Bring a part from far away along -toward until gap (Å) is left to the ligand; None if it passes by."""
    direction = _unit(toward)
    sites = part.sites(pos)
    # Pairs that can form a hydrogen bond come closer than their radii say, as they do in crystals.
    reach = ligand.radius[:, None] + sites.radius + gap - 0.6 * can_bond(ligand, sites)
    apart = sites.pos - ligand.pos[:, None]  # [n, m, 3]
    along = apart @ direction
    # A pair first touches at the larger root t of |apart + t * direction| = reach.
    discriminant = along**2 - (apart**2).sum(-1) + reach**2
    touches = discriminant >= 0
    if not touches.any():
        return None
    return pos + direction * (np.sqrt(discriminant[touches]) - along[touches]).max()


def _unit(vector: Floats) -> Floats:
    return vector / np.linalg.norm(vector)


def _is_free(parts: list[tuple[Part, Floats]], part: Part, pos: Floats) -> bool:
    mine = part.sites(pos).pos
    return all(cdist(mine, other.sites(at).pos).min() >= MIN_SEPARATION for other, at in parts)


def _add(parts: list[tuple[Part, Floats]], part: Part, pos: Floats | None) -> None:
    if pos is not None and _is_free(parts, part, pos):
        parts.append((part, pos))
