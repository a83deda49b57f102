"""What each protein-ligand contact adds to a prediction -> sums for each ligand atom and for each residue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rdkit import Chem

from src.chemistry.atoms import Atoms, ResidueId


@dataclass(frozen=True)
class ResidueShare:
    """All contacts of one residue of the pocket (an ion, a water and a cofactor count as residues too)."""

    residue: ResidueId
    place: int  # index of the residue in the pocket's Atoms
    pk: float
    num_contacts: int
    closest: float  # Å


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

    def residue_shares(self) -> list[ResidueShare]:
        """The residues that have contacts, the largest contribution of either sign first."""
        residue = self.pocket.residue_index[self.pocket_atom]
        count = np.bincount(residue, minlength=len(self.pocket.residue_ids))
        closest = np.full(len(count), np.inf)
        np.minimum.at(closest, residue, self.contact_distance)
        pk = self.of_residues()
        touching = np.flatnonzero(count)
        order = touching[np.argsort(-np.abs(pk[touching]), kind="stable")]
        return [
            ResidueShare(self.pocket.residue_ids[i], int(i), float(pk[i]), int(count[i]), float(closest[i]))
            for i in order
        ]
