"""A complex small enough to count by hand, as text of structure files.

Acetamide lies along x at the origin. Distances to its nearest atom: ASP 3.0 Å, ZN 4.0 Å, water 3.5 Å, ALA 5.0 Å,
GLY 7.0 Å (in the pocket, but without a contact within 6 Å), LYS 30 Å.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from config import CONFIG
from src.chemistry.ligands import read_ligand
from src.chemistry.proteins import read_protein
from src.data.cache import protein_file
from src.data_processing import build_graph
from src.graph import Batch, ComplexGraph
from src.pdbbind.folders import ComplexFiles
from src.settings import GraphSettings, Settings, read_settings

GRAPH_SETTINGS = GraphSettings(
    pocket_radius=8.0,
    interaction_cutoff=6.0,
    near_cutoff=4.5,
    max_neighbors=32,
    keep_waters=False,
    keep_ions=True,
    keep_cofactors=True,
)
LIGAND = [("C", 0.0, 0.0, 0.0), ("C", 1.5, 0.0, 0.0), ("O", 2.1, 1.1, 0.0), ("N", 2.1, -1.2, 0.2)]
LIGAND_BONDS = [(1, 2, 1), (2, 3, 2), (2, 4, 1)]

MOL2 = """@<TRIPOS>MOLECULE
acetamide
4 3 1 0 0
SMALL
NO_CHARGES

@<TRIPOS>ATOM
1 C1 0.0 0.0 0.0 C.3
2 C2 1.5 0.0 0.0 C.2
3 O1 2.1 1.1 0.0 O.2
4 N1 2.1 -1.2 0.2 N.am
@<TRIPOS>BOND
1 1 2 1
2 2 3 2
3 2 4 1
"""

CIF_NAMES = (
    "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id auth_seq_id "
    "pdbx_PDB_ins_code Cartn_x Cartn_y Cartn_z occupancy auth_asym_id pdbx_PDB_model_num"
)

# residue, chain, number -> atoms (name, element, x, y, z)
ASP = (
    "ASP",
    "A",
    10,
    [
        ("N", "N", -7.5, 0.0, 1.0),
        ("CA", "C", -6.4, 0.8, 0.6),
        ("C", "C", -6.8, 2.2, 0.3),
        ("O", "O", -7.9, 2.6, 0.5),
        ("CB", "C", -5.2, 0.7, 1.5),
        ("CG", "C", -4.0, 0.4, 0.7),
        ("OD1", "O", -3.0, 0.0, 0.0),
        ("OD2", "O", -4.2, 0.6, -0.5),
    ],
)
ALA = (
    "ALA",
    "A",
    11,
    [
        ("N", "N", -5.9, 3.1, -0.2),
        ("CA", "C", -4.2, 2.7, -0.2),
        ("C", "C", -5.0, 4.0, 0.3),
        ("O", "O", -4.6, 5.1, 0.2),
        ("CB", "C", -4.0, 4.2, -2.2),
    ],
)
GLY = (
    "GLY",
    "A",
    30,
    [
        ("N", "N", 0.0, 0.0, 7.0),
        ("CA", "C", 0.0, 0.0, 8.4),
        ("C", "C", 1.3, 0.0, 9.2),
        ("O", "O", 1.4, 0.0, 10.4),
    ],
)
LYS = ("LYS", "A", 90, [("N", "N", 30.0, 0.0, 0.0), ("CA", "C", 31.4, 0.0, 0.0)])
ZN = ("ZN", "A", 201, [("ZN", "ZN", 0.0, 0.0, -4.0)])
WATER = ("HOH", "A", 301, [("O", "O", 0.0, 0.0, 3.5)])
RESIDUES = [ASP, ALA, GLY, LYS, ZN, WATER]


def pdb_text(residues: list | None = None, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> str:
    lines, serial = [], 0
    for residue, chain, number, atoms in RESIDUES if residues is None else residues:
        record = "HETATM" if residue in ("ZN", "HOH") else "ATOM"
        for name, element, *xyz in atoms:
            serial += 1
            column = name if len(element) == 2 else f" {name}"
            x, y, z = (a + b for a, b in zip(xyz, shift, strict=True))
            lines.append(
                f"{record:<6}{serial:>5} {column:<4} {residue:>3} {chain}{number:>4}    "
                f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00 10.00          {element:>2}"
            )
    return "\n".join([*lines, "END", ""])


def sdf_text(
    name: str = "acetamide",
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0),
    atoms: list | None = None,
    bonds: list | None = None,
) -> str:
    atoms, bonds = LIGAND if atoms is None else atoms, LIGAND_BONDS if bonds is None else bonds
    lines = [name, "  test", "", f"{len(atoms):>3}{len(bonds):>3}  0  0  0  0  0  0  0  0999 V2000"]
    for element, *xyz in atoms:
        x, y, z = (a + b for a, b in zip(xyz, shift, strict=True))
        lines.append(f"{x:10.4f}{y:10.4f}{z:10.4f} {element:<3} 0  0  0  0  0  0  0  0  0  0  0  0")
    lines += [f"{i:>3}{j:>3}{order:>3}  0" for i, j, order in bonds]
    return "\n".join([*lines, "M  END", "$$$$", ""])


def mmcif(pdb: str, model: str = "1") -> str:
    """The atoms of a PDB file, given by its text, as text of an mmCIF file."""
    rows = []
    for number, row in enumerate(pdb.splitlines(), start=1):
        words = [
            row[:6],
            str(number),
            row[76:78],
            row[12:16],
            row[16],
            row[17:20],
            "Z",
            row[22:26],
            row[26],
            row[30:38],
            row[38:46],
            row[46:54],
            row[54:60],
            row[21],
            model,
        ]
        rows.append(" ".join(word.strip() or "." for word in words))
    names = "\n".join(f"_atom_site.{name}" for name in CIF_NAMES.split())
    return "data_test\n_entry.id test\n#\nloop_\n" + names + "\n" + "\n".join(rows) + "\n#\nloop_\n_x.y\n1\n"


def write_complex(folder: Path, code: str, *, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
    """<folder>/<code>/<code>_pocket.pdb and _ligand.sdf, the ligand moved by shift, Å."""
    (folder / code).mkdir(parents=True)
    (folder / code / f"{code}_pocket.pdb").write_text(pdb_text())
    (folder / code / f"{code}_ligand.sdf").write_text(sdf_text(code, shift))


def write_dataset(folder: Path, codes: list[str]) -> Path:
    """A flat data set with an index in the v.2020R1 form; complexes differ by a small shift of the ligand."""
    lines = ["# a comment"]
    for number, code in enumerate(codes):
        write_complex(folder, code, shift=(0.05 * number, 0.0, 0.0))
        lines.append(f"{code}  2.00  2010  Kd={1 + number}nM  // {code}.pdf (ACM)")
    index = folder / "index" / "INDEX_test.2020R1.lst"
    index.parent.mkdir()
    index.write_text("\n".join(lines) + "\n")
    return index


def small_settings(folder: Path, **changes: object) -> Settings:
    """CONFIG with a tiny model, everything in folder, and the data set that lies in folder/data."""
    return read_settings({**CONFIG, **small_config(folder), **changes}, root=folder)


def small_config(folder: Path) -> dict[str, object]:
    """The keys of CONFIG that make a run small enough for a test."""
    return {
        "dataset_path": str(folder / "data"),
        "processed_data_dir": str(folder / "processed"),
        "checkpoint_dir": str(folder / "checkpoints"),
        "results_dir": str(folder / "results"),
        "manual_save_trigger_file": str(folder / "SAVE_NOW.flag"),
        "processing_num_workers": 0,
        "train_split": 0.6,
        "validation_split": 0.2,
        "visnet_hidden_channels": 16,
        "visnet_num_layers": 1,
        "visnet_num_heads": 4,
        "visnet_num_rbf": 8,
        "batch_size": 4,
        "epochs": 2,
        "device": "cpu",
        "precision": "fp32",
    }


def read_and_build(files: ComplexFiles, settings: GraphSettings, structure: str = "auto") -> ComplexGraph:
    """The graph of one complex straight from its files, without the cache."""
    ligand = read_ligand(files.ligands)
    protein = read_protein(protein_file(files, structure))
    return build_graph(files.code, ligand, protein, settings)[0]


def tensors(graph: ComplexGraph | Batch) -> dict[str, Tensor]:
    values = {field.name: getattr(graph, field.name) for field in fields(graph)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def assert_same_graph(one: ComplexGraph | Batch, other: ComplexGraph | Batch) -> None:
    """Equal bit for bit in every tensor, and in every other field."""
    ours, theirs = tensors(one), tensors(other)
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype, name
        assert torch.equal(ours[name], theirs[name]), name
    for field in fields(one):
        assert field.name in ours or getattr(one, field.name) == getattr(other, field.name)
