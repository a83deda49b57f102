from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator
from scipy.spatial.distance import cdist

from src.chemistry.contact_energy import GAUSS, HBOND, HYDROPHOBIC, REPULSION, Sites, classify, interaction_energy
from src.data.demo import PK_MAX, PK_MIN, POCKET_RADIUS, DemoError, _molar_text, write_demo
from src.data.demo_poses import MIN_SEPARATION, PK_FAR, PK_PER_KCAL, draw_pose
from src.pdbbind.index import locate_complexes, read_index

NUM_COMPLEXES = 400
ELEMENTS = ("C", "N", "O", "S", "halogen")  # pair classes of the stand-in model; others are left out
BIN_EDGES = np.arange(2.5, 6.01, 0.5)  # Å


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder, num_complexes=NUM_COMPLEXES, seed=0)
    return folder


@pytest.fixture(scope="module")
def index(demo):
    return read_index(demo / "index" / "INDEX_demo.2020R1.lst")


def _bytes_of(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _heavy_atoms(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Residue keys, elements and positions of the heavy atoms of a PDB file, by its fixed columns."""
    rows = [line for line in path.read_text().splitlines() if line[:6].strip() in ("ATOM", "HETATM")]
    rows = [row for row in rows if row[76:78].strip() != "H"]
    pos = np.array([[float(row[30:38]), float(row[38:46]), float(row[46:54])] for row in rows])
    return [row[17:27] for row in rows], [row[76:78].strip() for row in rows], pos


def _ligand(demo: Path, code: str) -> tuple[Chem.Mol, np.ndarray]:
    mol = Chem.MolFromMolFile(str(demo / code / f"{code}_ligand.sdf"))
    return mol, mol.GetConformer().GetPositions()


def _one_atom(x: float, element_radius: float, **classes: bool) -> Sites:
    flags = {name: np.array([classes.get(name, False)]) for name in ("hydrophobic", "donor", "acceptor")}
    return Sites(np.array([[x, 0.0, 0.0]]), np.array([element_radius]), **flags)


@pytest.mark.parametrize(
    ("r", "classes", "expected"),
    [
        (4.8, {}, GAUSS * np.exp(-4)),  # d = 1
        (3.3, {}, GAUSS * np.exp(-1) + REPULSION * 0.25),  # d = -0.5
        (4.8, {"hydrophobic": True}, GAUSS * np.exp(-4) + HYDROPHOBIC * 0.5),  # half way down the ramp
        (3.8, {"hydrophobic": True}, GAUSS + HYDROPHOBIC),
        (3.8, {"donor": True, "acceptor": True}, GAUSS),  # d = 0: the hydrogen bond has just ended
        (3.45, {"donor": True, "acceptor": True}, GAUSS * np.exp(-0.49) + REPULSION * 0.35**2 + HBOND * 0.5),
        (3.45, {"donor": True}, GAUSS * np.exp(-0.49) + REPULSION * 0.35**2),  # two donors do not bond
        (8.0, {"hydrophobic": True, "donor": True, "acceptor": True}, 0.0),
    ],
)
def test_energy_of_one_pair_is_the_published_formula(r, classes, expected):
    energy = interaction_energy(_one_atom(0, 1.9, **classes), _one_atom(r, 1.9, **classes))
    assert energy == pytest.approx(expected, abs=1e-9)


def test_energy_ends_within_six_angstrom():
    largest = {"hydrophobic": True, "donor": True, "acceptor": True}
    energy = interaction_energy(_one_atom(0, 2.2, **largest), _one_atom(6.0, 2.2, **largest))
    assert abs(energy) < 1e-3


def test_label_is_the_energy_of_the_peptides_and_ions_without_the_water():
    """Recomputed from the parts of a pose merged into one pocket, and the ligand classified afresh."""
    for seed in range(5):
        pose = draw_pose(np.random.default_rng(seed))
        dry = [part.sites(at) for part, at in pose.parts if part.labels[0][1] != "HOH"]
        fields = ("pos", "radius", "hydrophobic", "donor", "acceptor")
        pocket = Sites(*(np.concatenate([getattr(sites, field) for sites in dry]) for field in fields))
        radius, classes = classify(pose.ligand)
        ligand = Sites(pose.ligand.GetConformer().GetPositions()[: len(radius)], radius, *classes)
        assert pose.pk == pytest.approx(PK_FAR - PK_PER_KCAL * interaction_energy(ligand, pocket), abs=1e-6)


@pytest.mark.parametrize(
    ("smiles", "hydrophobic", "donors", "acceptors"),
    [
        ("CCO", [0], [2], [2]),
        ("CC(=O)O", [0], [], [2, 3]),  # an acid is an acceptor only
        ("CC(=O)NC", [0], [3], [2]),
        ("c1ccncc1", [0, 1, 5], [], [3]),  # carbons beside the nitrogen are polar
        ("CC[NH3+]", [0], [2], []),
        ("NC(=N)N", [], [0, 2, 3], []),
        ("c1c[nH]cc1Cl", [0, 5], [2], []),
    ],
)
def test_atom_classes(smiles, hydrophobic, donors, acceptors):
    _, classes = classify(Chem.AddHs(Chem.MolFromSmiles(smiles)))
    assert [np.flatnonzero(row).tolist() for row in classes] == [hydrophobic, donors, acceptors]


def test_same_seed_gives_the_same_bytes_and_a_smaller_set_is_a_prefix(tmp_path):
    for name, count, seed in (("a", 6, 1), ("b", 6, 1), ("small", 3, 1), ("other", 6, 2)):
        write_demo(tmp_path / name, num_complexes=count, seed=seed)
    first, small = _bytes_of(tmp_path / "a"), _bytes_of(tmp_path / "small")
    assert first == _bytes_of(tmp_path / "b")
    assert len(first) == 6 * 4 + 2
    assert all(first[name] == digest for name, digest in small.items() if name.startswith("d0"))
    assert first["d001/d001_ligand.sdf"] != _bytes_of(tmp_path / "other")["d001/d001_ligand.sdf"]


def test_another_process_writes_the_same_bytes(demo, tmp_path):
    """Nothing may depend on the order of hashes, the clock or the number of threads."""
    script = "import sys, pathlib, src.data.demo as d; d.write_demo(pathlib.Path(sys.argv[1]), num_complexes=2)"
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "2", "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, cwd=root, env=environment, timeout=120)
    other = _bytes_of(tmp_path)
    here = {name: hashlib.sha256((demo / name).read_bytes()).hexdigest() for name in other}
    assert {name for name in other if other[name] != here[name]} == {
        "demo.json",
        "index/INDEX_demo.2020R1.lst",
    }


def test_complete_set_is_left_alone_and_any_other_is_written_again(tmp_path):
    index_file = write_demo(tmp_path, num_complexes=2)
    whole = _bytes_of(tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert write_demo(tmp_path, num_complexes=2) == index_file
    assert written == {path: path.stat().st_mtime_ns for path in written}

    (tmp_path / "d002" / "d002_ligand.mol2").unlink()
    write_demo(tmp_path, num_complexes=2)
    assert _bytes_of(tmp_path) == whole

    # A run that was cut short has written files but no stamp.
    (tmp_path / "demo.json").unlink()
    (tmp_path / "d001" / "d001_protein.pdb").write_text("ATOM")
    write_demo(tmp_path, num_complexes=2)
    assert _bytes_of(tmp_path) == whole

    write_demo(tmp_path, num_complexes=3)
    assert len(read_index(index_file).entries) == 3


def test_interrupted_rewrite_does_not_pass_for_complete(tmp_path, monkeypatch):
    write_demo(tmp_path, num_complexes=2)
    monkeypatch.setattr("src.data.demo.draw_pose", lambda rng: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_demo(tmp_path, num_complexes=3)
    assert not (tmp_path / "demo.json").exists()


@pytest.mark.parametrize("num_complexes", [0, -1, 1000])
def test_impossible_counts_are_named(tmp_path, num_complexes):
    with pytest.raises(DemoError, match=f"num_complexes = {num_complexes} must be from 1 to 999"):
        write_demo(tmp_path / "demo", num_complexes=num_complexes)
    assert not (tmp_path / "demo").exists()


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "demo").write_text("mine")
    with pytest.raises(DemoError, match="is a file"):
        write_demo(tmp_path / "demo")
    assert (tmp_path / "demo").read_text() == "mine"


@pytest.mark.parametrize(
    ("pk", "text"), [(2, "10mM"), (3, "1mM"), (5.9082, "1.235uM"), (6, "1uM"), (8.5, "3.162nM"), (12, "1pM")]
)
def test_affinity_has_four_digits_in_a_fitting_unit(pk, text):
    assert _molar_text(pk) == text


def test_index_and_folders_are_read_as_pdbbind(demo, index):
    codes = [entry.code for entry in index.entries]
    assert len(set(codes)) == NUM_COMPLEXES
    assert not index.bad_lines
    assert {entry.kind for entry in index.entries} == {"Kd", "Ki"}
    assert all(PK_MIN - 1e-3 <= entry.pk <= PK_MAX + 1e-3 for entry in index.entries)
    text = (demo / "index" / "INDEX_demo.2020R1.lst").read_text()
    assert "NOT MEASURED" in text
    assert "10.1002/jcc.21334" in text
    files = locate_complexes(demo, codes)
    assert sorted(files) == sorted(codes)
    first = files["d001"]
    names = [path.name for path in (first.protein, first.pocket, *first.ligands)]
    assert names == ["d001_protein.pdb", "d001_pocket.pdb", "d001_ligand.sdf", "d001_ligand.mol2"]


def test_every_ligand_is_sane_and_mol2_agrees_with_sdf(demo, index):
    sizes, elements = [], set()
    for entry in index.entries:
        stem = demo / entry.code / f"{entry.code}_ligand"
        sdf = Chem.MolFromMolFile(f"{stem}.sdf", removeHs=False)
        mol2 = Chem.MolFromMol2File(f"{stem}.mol2", removeHs=False)
        assert sdf is not None, entry.code
        assert mol2 is not None, entry.code
        assert Chem.MolToSmiles(sdf, isomericSmiles=False) == Chem.MolToSmiles(mol2, isomericSmiles=False)
        assert sdf.GetConformer().Is3D()
        np.testing.assert_allclose(sdf.GetConformer().GetPositions(), mol2.GetConformer().GetPositions(), atol=1e-4)
        sizes.append(sdf.GetNumHeavyAtoms())
        elements |= {atom.GetSymbol() for atom in sdf.GetAtoms()}
    assert all(8 <= size <= 36 for size in sizes)
    assert elements == {"H", "C", "N", "O", "F", "P", "S", "Cl", "Br", "I"}


def test_pocket_is_the_part_of_the_protein_near_the_ligand(demo, index):
    larger = 0
    for entry in index.entries[:60]:
        stem = demo / entry.code / entry.code
        protein = Path(f"{stem}_protein.pdb").read_text().splitlines()[1:-1]
        pocket = Path(f"{stem}_pocket.pdb").read_text().splitlines()[1:-1]
        assert set(pocket) <= set(protein)
        assert len(protein) == len(set(protein))
        larger += len(protein) > len(pocket)
        _, ligand = _ligand(demo, entry.code)
        residues, _, pos = _heavy_atoms(Path(f"{stem}_protein.pdb"))
        distance = cdist(pos, ligand).min(1)
        clear = np.abs(distance - POCKET_RADIUS) > 0.01  # coordinates in the files are rounded
        near = {residue for residue, d in zip(residues, distance, strict=True) if d < POCKET_RADIUS}
        if clear.all():
            assert near == set(_heavy_atoms(Path(f"{stem}_pocket.pdb"))[0])
    assert larger == 60


def test_atoms_keep_their_distance(demo, index):
    for entry in index.entries:
        _, elements, pos = _heavy_atoms(demo / entry.code / f"{entry.code}_protein.pdb")
        distance = cdist(pos, _ligand(demo, entry.code)[1]).min(1)
        is_metal = np.array(elements) == "ZN"
        assert distance[~is_metal].min() > 2.5, entry.code
        assert (distance[is_metal] > 1.9).all(), entry.code


def test_parts_of_a_pocket_do_not_overlap():
    for seed in range(20):
        heavy = [part.sites(at).pos for part, at in draw_pose(np.random.default_rng(seed)).parts]
        for number, one in enumerate(heavy):
            assert all(cdist(one, other).min() >= MIN_SEPARATION - 1e-9 for other in heavy[:number])


def test_residues_have_the_bonds_of_their_names(demo, index):
    """RDKit swaps two names in isoleucine, which would put 3 Å between CG1 and CD1."""
    bonds = {
        ("N", "CA"),
        ("CA", "C"),
        ("C", "O"),
        ("CA", "CB"),
        ("CB", "CG1"),
        ("CG1", "CD1"),
        ("CD1", "NE1"),
    }
    seen = dict.fromkeys(bonds, 0)
    for entry in index.entries[:40]:
        atoms: dict[str, dict[str, np.ndarray]] = {}
        for line in (demo / entry.code / f"{entry.code}_protein.pdb").read_text().splitlines():
            if line.startswith("ATOM"):
                xyz = np.array([float(line[30:38]), float(line[38:46]), float(line[46:54])])
                atoms.setdefault(line[17:27], {})[line[12:16].strip()] = xyz
        for residue in atoms.values():
            assert {"N", "CA", "C", "O"} <= set(residue)
            assert "OXT" not in residue
            for a, b in bonds:
                if a in residue and b in residue:
                    assert 1.1 < np.linalg.norm(residue[a] - residue[b]) < 1.7, (entry.code, a, b)
                    seen[a, b] += 1
    assert min(seen.values()) > 5


def test_set_holds_ions_waters_and_proteins_with_and_without_hydrogens(demo, index):
    texts = [(demo / entry.code / f"{entry.code}_protein.pdb").read_text() for entry in index.entries]
    with_hydrogens = [any(line[76:78] == " H" for line in text.splitlines()) for text in texts]
    assert sum(with_hydrogens) == NUM_COMPLEXES // 2
    assert 10 < sum("ZN    ZN" in text for text in texts) < 100
    assert sum("HOH" in text for text in texts) > NUM_COMPLEXES // 2


def _pair_counts(demo: Path, code: str) -> np.ndarray:
    """Protein-ligand pairs counted by element, element and 0.5 Å of distance."""

    def classes(symbols):
        halogen = ("F", "Cl", "Br", "I")
        names = ["halogen" if symbol in halogen else symbol for symbol in symbols]
        return np.array([ELEMENTS.index(name) if name in ELEMENTS else -1 for name in names])

    mol, ligand = _ligand(demo, code)
    _, elements, pocket = _heavy_atoms(demo / code / f"{code}_pocket.pdb")
    of_ligand, of_pocket = classes(atom.GetSymbol() for atom in mol.GetAtoms()), classes(elements)
    bins = np.digitize(cdist(ligand, pocket), BIN_EDGES)
    counts = np.zeros((len(ELEMENTS), len(ELEMENTS), len(BIN_EDGES) + 1))
    used = (of_ligand[:, None] >= 0) & (of_pocket >= 0)
    np.add.at(counts, tuple(a[used] for a in np.broadcast_arrays(of_ligand[:, None], of_pocket, bins)), 1)
    return counts[..., :-1].ravel()


def _ridge_pearson(x: np.ndarray, y: np.ndarray, strength: float) -> float:
    """Pearson R of a ridge regression on the last quarter, fitted on the rest."""
    train = len(y) * 3 // 4
    scale = x[:train].std(0) + 1e-9
    x = (x - x[:train].mean(0)) / scale
    gram = x[:train].T @ x[:train] + strength * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, x[:train].T @ (y[:train] - y[:train].mean()))
    return float(np.corrcoef(x[train:] @ weights, y[train:])[0, 1])


def test_contacts_tell_the_label_and_the_ligand_does_not(demo, index):
    """What the set is for: a sum over contacts learns it, and neither size nor the ligand's identity does."""
    codes = [entry.code for entry in index.entries]
    pk = np.array([entry.pk for entry in index.entries])
    mols = [_ligand(demo, code)[0] for code in codes]
    morgan = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=512)
    fingerprints = np.array([morgan.GetFingerprintAsNumPy(mol) for mol in mols], dtype=float)
    sizes = np.array([[mol.GetNumHeavyAtoms()] for mol in mols], dtype=float)
    contacts = np.array([_pair_counts(demo, code) for code in codes])

    by_contacts = _ridge_pearson(contacts, pk, 30.0)
    by_fingerprint = max(_ridge_pearson(fingerprints, pk, strength) for strength in (1.0, 30.0, 300.0))
    by_size = _ridge_pearson(sizes, pk, 1.0)
    assert 1.5 < pk.std() < 2.2
    assert by_contacts > 0.9
    assert abs(by_size) < 0.5
    assert by_fingerprint < 0.6
