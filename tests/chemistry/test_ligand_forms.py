"""One molecule in the 24 forms in which programs write it gives one typed ligand, atom by atom.

What the forms cannot say, and the molecules here therefore do not have: in a file with aromatic bonds and without
hydrogens, which of two tautomers it is that differ in the place of a hydrogen at a ring that is no azole (cytosine is
read as 1H, quinazolinone as 3H, purine with the hydrogen in its small ring).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem, rdBase
from rdkit.Chem import rdFingerprintGenerator
from rdkit.SimDivFilters import rdSimDivPickers

from src.chemistry.ligand_parsing import parse_ligand
from src.chemistry.ligand_typing import heavy_form
from src.chemistry.ligands import Ligand, LigandError, iter_ligands, ligand_records
from tests.chemistry.ligand_forms import MOLECULES, conformer, forms

DATA = Path(os.environ.get("AIDD_REAL_DATA", "absent")) / "pdbbind"
NUM_FORMS, NUM_REAL = 24, 45


def assert_one_ligand(mol: Chem.Mol, folder: Path) -> None:
    """All forms have the features and bonds of the first, atom by atom, and the coordinates of the molecule."""
    expected = None
    names = []
    for name, ending, text, order in forms(mol):
        path = folder / f"{len(names)}.{ending}"
        path.write_text(text, encoding="utf-8")
        (ligand,) = iter_ligands(path)
        assert isinstance(ligand, Ligand), f"{name}: {ligand}"
        back = np.argsort(order)
        pairs = zip(*ligand.atoms.bonds.tolist(), ligand.atoms.bond_types.tolist(), strict=True)
        bonds = sorted((*sorted((order[i], order[j])), kind) for i, j, kind in pairs)
        found = ligand.atoms.features[back].tolist(), bonds
        expected = expected or found
        assert found == expected, f"{name}: {ligand.smiles}, {ligand.notes}"
        np.testing.assert_allclose(ligand.atoms.pos[back], mol.GetConformer().GetPositions(), atol=6e-5)
        names.append(name)
    assert len(set(names)) == NUM_FORMS


@pytest.mark.fault("I1", "I5")
@pytest.mark.parametrize("smiles", MOLECULES.values(), ids=MOLECULES.keys())
def test_all_forms_of_a_molecule_are_one_ligand(tmp_path: Path, smiles: str) -> None:
    assert_one_ligand(conformer(smiles), tmp_path)


def real_ligands() -> list[tuple[str, Chem.Mol]]:
    """The NUM_REAL least alike of every 20th complex, by MaxMin over Morgan fingerprints from the first on.

    Ligands with metals or more than 80 heavy atoms, and those whose bond orders are mended, stay out.
    """
    found = []
    for folder in sorted(path for path in DATA.iterdir() if re.fullmatch(r"\w{4}", path.name))[::20]:
        record = next(ligand_records(folder / f"{folder.name}_ligand.sdf"))
        try:
            with rdBase.BlockLogs():
                mol, notes = heavy_form(parse_ligand(record.text, record.kind)[0])
        except ValueError:
            continue
        organic = {atom.GetAtomicNum() for atom in mol.GetAtoms()} <= {5, 6, 7, 8, 9, 15, 16, 17, 35, 53}
        if organic and not notes and 6 <= mol.GetNumAtoms() <= 80:
            found.append((folder.name, mol))
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    prints = [generator.GetFingerprint(mol) for _, mol in found]
    picked = rdSimDivPickers.MaxMinPicker().LazyBitVectorPick(prints, len(prints), NUM_REAL, firstPicks=[0], seed=0)
    return [found[place] for place in picked]


@pytest.mark.skipif("AIDD_REAL_DATA" not in os.environ, reason="AIDD_REAL_DATA is not set")
def test_all_forms_of_real_ligands_are_one_ligand(tmp_path: Path) -> None:
    chosen = real_ligands()
    assert len(chosen) == NUM_REAL
    for code, mol in chosen:
        (tmp_path / code).mkdir()
        assert_one_ligand(mol, tmp_path / code)


def test_a_damaged_form_is_no_ligand(tmp_path: Path) -> None:
    """The oracle sees a difference: one bond order of one form changed."""
    mol = conformer("CC(=O)Nc1ccccc1")
    text = next(text for _, ending, text, _ in forms(mol) if ending == "mol2")
    (tmp_path / "x.mol2").write_text(re.sub(r"( +2 +3) 2\n", r"\1 9\n", text))
    (error,) = iter_ligands(tmp_path / "x.mol2")
    assert isinstance(error, LigandError)
    assert "unknown bond type '9'" in str(error)
