"""What each protein-ligand contact adds to a prediction -> sums for each ligand atom and for each residue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rdkit import Chem

from src.chemistry.atoms import Atoms, ResidueId
from src.chemistry.contact_energy import pocket_sites
from src.graph import FEATURE_COLUMN, MAX_CHARGE

# What two atoms do, and up to which distance, Å: of ions and greasy atoms that of PLIP (doi 10.1093/nar/gkv315); donor
# and acceptor, and atoms of two aromatic rings that face each other, are nearer.
KINDS = {"ionic": 5.5, "hydrogen bond": 3.5, "aromatic": 4.5, "hydrophobic": 4.0}


@dataclass(frozen=True)
class ResidueShare:
    """All contacts of one residue of the pocket (an ion, a water and a cofactor count as residues too)."""

    residue: ResidueId
    place: int  # index of the residue in the pocket's Atoms
    pk: float
    num_contacts: int
    closest: float  # Å
    kinds: tuple[str, ...]  # of KINDS


@dataclass(frozen=True)
class Attribution:
    """A prediction as a constant plus one number for each contact.

    Both ways to sum the contacts, over ligand atoms and over residues, share out the whole of pk - constant.
    """

    name: str
    mol: Chem.Mol  # the ligand: heavy atoms, neutral form, with coordinates
    ligand: Atoms  # the same atoms
    pocket: Atoms
    constant: float  # pK of a ligand without contacts
    contact_pk: np.ndarray  # [C] float64, pK
    ligand_atom: np.ndarray  # [C] int64, index into ligand
    pocket_atom: np.ndarray  # [C] int64, index into pocket
    num_models: int = 1  # constant and contact_pk are means over so many

    @property
    def pk(self) -> float:
        return self.constant + self.total

    @property
    def total(self) -> float:
        """pK that the contacts add to the constant."""
        return float(self.contact_pk.sum())

    @property
    def contact_distance(self) -> np.ndarray:
        """[C], Å."""
        return np.linalg.norm(self.ligand.pos[self.ligand_atom] - self.pocket.pos[self.pocket_atom], axis=1)

    def of_ligand_atoms(self) -> np.ndarray:
        """[ligand atoms], pK."""
        return np.bincount(self.ligand_atom, weights=self.contact_pk, minlength=len(self.ligand))

    def of_residues(self) -> np.ndarray:
        """[residues of the pocket], pK; 0 for those without a contact."""
        residue = self.pocket.residue_index[self.pocket_atom]
        return np.bincount(residue, weights=self.contact_pk, minlength=len(self.pocket.residue_ids))

    def contact_kinds(self) -> dict[str, np.ndarray]:
        """[C] for each of KINDS whether a contact is of it; one may be of several or of none."""
        one, other = self.ligand_atom, self.pocket_atom
        ligand, pocket = pocket_sites(self.ligand), pocket_sites(self.pocket)
        charge, its_charge = (_column(atoms, "charge") - MAX_CHARGE for atoms in (self.ligand, self.pocket))
        is_ring, its_ring = (_column(atoms, "aromatic") == 1 for atoms in (self.ligand, self.pocket))
        bonds = ligand.donor[one] & pocket.acceptor[other] | ligand.acceptor[one] & pocket.donor[other]
        found = {
            "ionic": charge[one] * its_charge[other] < 0,
            "hydrogen bond": bonds,
            "aromatic": is_ring[one] & its_ring[other],
            "hydrophobic": ligand.hydrophobic[one] & pocket.hydrophobic[other],
        }
        return {kind: found[kind] & (self.contact_distance <= limit) for kind, limit in KINDS.items()}

    def residue_shares(self) -> list[ResidueShare]:
        """The residues that have contacts, the largest contribution of either sign first."""
        residue = self.pocket.residue_index[self.pocket_atom]
        count = np.bincount(residue, minlength=len(self.pocket.residue_ids))
        closest = np.full(len(count), np.inf)
        np.minimum.at(closest, residue, self.contact_distance)
        pk = self.of_residues()
        touching = np.flatnonzero(count)
        order = touching[np.argsort(-np.abs(pk[touching]), kind="stable")]
        of_kind = {kind: set(residue[chosen].tolist()) for kind, chosen in self.contact_kinds().items()}
        return [
            ResidueShare(
                self.pocket.residue_ids[i],
                int(i),
                float(pk[i]),
                int(count[i]),
                float(closest[i]),
                tuple(kind for kind, residues in of_kind.items() if i in residues),
            )
            for i in order.tolist()
        ]


def _column(atoms: Atoms, name: str) -> np.ndarray:
    return atoms.features[:, FEATURE_COLUMN[name]].astype(int)
