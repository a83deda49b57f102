"""Kinds of contact, counted by hand."""

from __future__ import annotations

import numpy as np
from rdkit import Chem

from src.chemistry.atoms import Atoms, ResidueId
from src.explanation.attribution import Attribution
from src.graph import FEATURE_COLUMN, MAX_CHARGE, NODE_FEATURES


def atoms(*rows: tuple[float, dict[str, int]], names: tuple[str, ...] = ()) -> Atoms:
    """Each in a residue of its own, by its place on a line, Å, and its facts; charges as they are."""
    features = np.zeros((len(rows), len(NODE_FEATURES)), dtype=np.uint8)
    features[:, FEATURE_COLUMN["charge"]] = MAX_CHARGE
    for row, (_, facts) in zip(features, rows, strict=True):
        for name, value in facts.items():
            row[FEATURE_COLUMN[name]] = value + MAX_CHARGE if name == "charge" else value
    return Atoms(
        pos=np.array([(x, 0.0, 0.0) for x, _ in rows]),
        features=features,
        residue_index=np.arange(len(rows), dtype=np.int32),
        residue_labels=names or tuple(map(str, range(len(rows)))),
        atom_names=("X",) * len(rows),
        bonds=np.zeros((2, 0), dtype=np.int32),
        bond_types=np.zeros(0, dtype=np.uint8),
        residue_ids=tuple(ResidueId("A", name, number, "") for number, name in enumerate(names)),
    )


def test_kinds_of_contact_by_hand() -> None:
    anion, ring = {"element": 8, "charge": -1, "acceptor": 1}, {"element": 6, "aromatic": 1}
    ligand = atoms((0.0, anion), (100.0, ring))
    pocket = atoms(
        (2.8, {"element": 7, "charge": 1, "donor": 1}),
        (-5.0, {"element": 7, "charge": 1, "donor": 1}),
        (3.4, {"element": 8, "acceptor": 1}),
        (103.9, ring),
        (104.2, ring),
        (103.8, {"element": 6}),
        (106.0, {"element": 6}),
        names=("ARG", "LYS", "GLU", "PHE", "TYR", "LEU", "VAL"),
    )
    pairs = np.array([(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 5), (1, 6)]).T
    found = Attribution("x", Chem.Mol(), ligand, pocket, 0.0, np.arange(7, 0, -1.0), *pairs)
    assert {share.residue.name: share.kinds for share in found.residue_shares()} == {
        "ARG": ("ionic", "hydrogen bond"),
        "LYS": ("ionic",),
        "GLU": (),
        "PHE": ("aromatic", "hydrophobic"),
        "TYR": ("aromatic",),
        "LEU": ("hydrophobic",),
        "VAL": (),
    }
