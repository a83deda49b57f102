"""Real complexes written with the ligand inside give the graphs of their SDF; AIDD_REAL_DATA names their folder."""

from __future__ import annotations

import os
import string
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from src.chemistry.atoms import StructureError
from src.chemistry.ligands import Ligand, read_ligand
from src.chemistry.proteins import read_protein
from src.data_processing import GraphError, build_graph
from src.pdbbind.folders import ComplexFiles, locate_complexes
from src.scoring.pose_graphs import PoseReader
from src.scoring.poses import iter_complexes
from tests.complex_texts import as_mmcif, component_bonds, ligand_lines
from tests.complexes import GRAPH_SETTINGS, assert_same_graph

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("AIDD_REAL_DATA" not in os.environ, reason="AIDD_REAL_DATA is not set"),
]
DATA = Path(os.environ.get("AIDD_REAL_DATA", "absent")) / "pdbbind"
COUNT = int(os.environ.get("AIDD_REAL_COMPLEXES", "300"))
LEAST = 0.98  # of each form


def sample() -> list[tuple[str, ComplexFiles]]:
    codes = sorted(path.name for path in DATA.iterdir() if len(path.name) == 4)
    files = locate_complexes(DATA, codes[:: max(len(codes) // COUNT, 1)])
    return [(code, one) for code, one in files.items() if one.ligands and (one.pocket or one.protein)][:COUNT]


def test_pdb_and_mmcif_with_the_ligand_inside_give_the_graph_of_the_sdf(tmp_path: Path) -> None:
    reasons: dict[str, Counter[str]] = {"pdb": Counter(), "cif": Counter()}
    total = 0
    for code, files in sample():
        protein = files.pocket or files.protein
        try:
            ligand = _in_three_decimals(read_ligand(files.ligands))
            expected, _ = build_graph(code, ligand, read_protein(protein), GRAPH_SETTINGS)
        except (StructureError, GraphError):
            continue  # that no program could use
        if not ligand.smiles or "partial" in ligand.read_as:
            continue
        total += 1
        text = protein.read_text(encoding="latin-1")
        used = {line[21] for line in text.splitlines() if line.startswith(("ATOM", "HETATM"))}
        chain = next(letter for letter in string.ascii_uppercase + string.digits if letter not in used)
        mol = Chem.Mol(ligand.mol)
        Chem.Kekulize(mol, clearAromaticFlags=True)
        atoms = [line for line in text.splitlines() if line.startswith(("ATOM", "HETATM"))]
        pdb = "\n".join([*atoms, *ligand_lines(mol, chain=chain), "END", ""])
        for form, content, smiles in (("pdb", pdb, ligand.smiles), ("cif", as_mmcif(pdb, component_bonds(mol)), "")):
            path = tmp_path / f"{code}.{form}"
            path.write_text(content)
            (found,) = PoseReader(GRAPH_SETTINGS, one_receptor=False).read(list(iter_complexes([path], (), smiles)))
            if found.failure:
                reasons[form][f"{code}: {found.failure}"] += 1
                continue
            graph = found.graphs[0]
            if _without_phosphate_stereo(graph.smiles) == _without_phosphate_stereo(expected.smiles):
                graph = replace(graph, smiles=expected.smiles)
            try:
                assert_same_graph(replace(graph, code=code), expected)
            except AssertionError:
                reasons[form][f"{code}: {_difference(graph, expected)}"] += 1
    for form, others in reasons.items():
        print(f"{form}: {total - others.total()} of {total} alike;", *others, sep="\n  ")
    assert total > 0.9 * COUNT
    assert all(others.total() <= (1 - LEAST) * total for others in reasons.values())


def _without_phosphate_stereo(smiles: str) -> str:
    """Which of the oxygens of a phosphate has the double bond is the drawing's alone."""
    mol = Chem.MolFromSmiles(smiles)
    for atom in mol.GetAtoms():
        if atom.GetAtomicNum() in (15, 16):
            atom.SetChiralTag(Chem.ChiralType.CHI_UNSPECIFIED)
    return Chem.MolToSmiles(mol)


def _in_three_decimals(ligand: Ligand) -> Ligand:
    pos = np.round(ligand.atoms.pos, 3)
    mol = Chem.Mol(ligand.mol)
    mol.GetConformer().SetPositions(pos)
    return replace(ligand, atoms=replace(ligand.atoms, pos=pos), mol=mol)


def _difference(found, expected) -> str:
    names = [
        name for name in ("smiles", "num_ligand_atoms", "features", "ligand_bonds", "ligand_bond_types", "contacts")
        if str(getattr(found, name)) != str(getattr(expected, name))
    ]  # fmt: skip
    return f"other {', '.join(names) or 'pocket'}: {found.smiles} for {expected.smiles}"
