"""Folder layouts of a few empty files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from src.pdbbind.affinity import PDBbindError
from src.pdbbind.folders import list_index_candidates, locate_complexes

REAL_DATA = os.environ.get("AIDD_REAL_DATA")


def add_complex(folder: Path, code: str, *parts: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts or ("protein.pdb", "pocket.pdb", "ligand.sdf", "ligand.mol2"):
        (folder / f"{code}_{part}").touch()


@pytest.mark.parametrize(
    "layout", [".", "refined-set", "general-set-except-refined", "v2020-other-PL", "P-L/1981-2000", "coreset"]
)
def test_layouts(tmp_path, layout):
    add_complex(tmp_path / layout / "1a30", "1a30")
    add_complex(tmp_path / layout / "2xyz", "2xyz")
    (files,) = locate_complexes(tmp_path, ["1A30", "9zzz"]).values()
    folder = tmp_path / layout / "1a30"
    assert (files.code, files.protein, files.pocket) == (
        "1A30",
        folder / "1a30_protein.pdb",
        folder / "1a30_pocket.pdb",
    )
    assert files.ligands == (folder / "1a30_ligand.sdf", folder / "1a30_ligand.mol2")


def test_file_names(tmp_path):
    add_complex(tmp_path / "1A30", "1A30", "PROTEIN.CIF.gz", "pocket.ent", "ligand.mol2", "ligand.SDF.gz")
    add_complex(tmp_path / "2a30", "2a30", "ligand.sdf", "protein_old.pdb")
    (tmp_path / "3a30").mkdir()
    files = locate_complexes(tmp_path, ["1a30", "2a30", "3a30"])
    assert files["1a30"].protein.name == "1A30_PROTEIN.CIF.gz"
    assert files["1a30"].pocket.name == "1A30_pocket.ent"
    assert [path.name for path in files["1a30"].ligands] == ["1A30_ligand.SDF.gz", "1A30_ligand.mol2"]
    assert (files["2a30"].protein, len(files["2a30"].ligands)) == (None, 1)
    assert (files["3a30"].pocket, files["3a30"].ligands) == (None, ())


def test_a_complete_folder_wins_over_an_earlier_incomplete_one(tmp_path):
    add_complex(tmp_path / "coreset" / "1a30", "1a30", "ligand.sdf")
    add_complex(tmp_path / "refined-set" / "1a30", "1a30")
    add_complex(tmp_path / "v2020-other-PL" / "1a30", "1a30")
    assert locate_complexes(tmp_path, ["1a30"])["1a30"].protein.parent.parent.name == "refined-set"


@pytest.mark.fault("G10", "K7")
def test_links_out_of_the_root_are_refused(tmp_path, caplog):
    root, outside = tmp_path / "root", tmp_path / "outside"
    add_complex(outside / "1a30", "1a30")
    add_complex(root / "2a30", "2a30", "ligand.sdf")
    add_complex(root / "store", "3a30")
    (root / "1a30").symlink_to(outside / "1a30")
    (root / "2a30" / "2a30_protein.pdb").symlink_to(outside / "1a30" / "1a30_protein.pdb")
    (root / "3a30").symlink_to(root / "store")
    (root / "loop").symlink_to(root / "loop")
    (tmp_path / "link").symlink_to(root)
    files = locate_complexes(tmp_path / "link", ["1a30", "2a30", "3a30", "../outside/1a30"])
    assert sorted(files) == ["2a30", "3a30"]
    assert files["2a30"].protein is None
    assert files["3a30"].protein.name == "3a30_protein.pdb"
    assert "the link leaves" in caplog.text


def test_index_candidates_lie_beside_the_complexes(tmp_path):
    add_complex(tmp_path / "1a30", "1a30")
    add_complex(tmp_path / "refined-set" / "2a30", "2a30")
    wanted = [
        tmp_path / "a.csv",
        tmp_path / "index" / "INDEX_a",
        tmp_path / "refined-set" / "INDEX_b",
        tmp_path / "refined-set" / "Index" / "INDEX_c",
    ]
    for path in (
        *wanted,
        tmp_path / "1a30" / "index" / "INDEX_d",
        tmp_path / "refined-set" / "old" / "INDEX_e",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert list_index_candidates(tmp_path) == wanted


def test_root_must_be_a_folder(tmp_path):
    for search in (list_index_candidates, lambda root: locate_complexes(root, ["1a30"])):
        with pytest.raises(PDBbindError, match="not a folder"):
            search(tmp_path / "missing")


@pytest.mark.skipif(REAL_DATA is None, reason="AIDD_REAL_DATA is not set")
def test_real_folders():
    root = Path(REAL_DATA) / "pdbbind"
    located = locate_complexes(root, [folder.name for folder in root.iterdir() if folder.name != "index"])
    assert (len(located), sum(found.protein is not None for found in located.values())) == (2861, 216)
    assert all(found.pocket and found.ligands for found in located.values())
