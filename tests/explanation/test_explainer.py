"""What each contact adds: the sums are the prediction, and every file says so of the right atoms and residues."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from rdkit import Chem

import predict as scoring_program
from src.checkpoint import load_checkpoint, save_checkpoint
from src.chemistry.atoms import ResidueId
from src.chemistry.ligands import Ligand, ligand_of, read_ligand
from src.chemistry.proteins import Protein, read_protein
from src.data.batching import collate
from src.data.dataset import Example
from src.data_processing import build_graph, pocket_atoms
from src.explanation.attribution import Attribution
from src.explanation.explainer import Explainer, PoseAttributions, explain, write_explanation
from src.explanation.files import MAX_B, b_factor_scale, pdb_text, pymol_text, residue_rows, sdf_text
from src.explanation.page import MAX_DRAWN_ATOMS, Score, drawing, page
from src.gaussian_process.joined_model import JoinedModel
from src.gaussian_process.process import fit_gaussian_process
from src.hardware.inference import predict_batches
from src.model import AffinityModel
from src.scoring.poses import iter_poses
from tests.checkpoints import make_checkpoint
from tests.complexes import GRAPH_SETTINGS, LIGAND, RESIDUES, small_settings
from tests.complexes import pdb_text as complex_pdb
from tests.complexes import sdf_text as ligand_sdf
from tests.explanation.models import random_model, read
from tests.synthetic import random_batch, tiny_settings


@pytest.fixture
def explained(tmp_path: Path) -> Attribution:
    return explain([random_model()], *read(tmp_path), GRAPH_SETTINGS)


def expected_pk(models: list[AffinityModel], ligand: Ligand, protein: Protein) -> float:
    batch = collate([Example(build_graph("x", ligand, protein, GRAPH_SETTINGS)[0], math.nan)])
    return float(np.mean([predict_batches(model, [batch], torch.device("cpu"))[0][0] for model in models]))


# Sums


@pytest.mark.parametrize("num_models", [1, 3])
def test_both_tables_add_up_to_the_prediction_minus_the_constant(tmp_path: Path, num_models: int) -> None:
    models = [random_model(seed) for seed in range(num_models)]
    ligand, protein = read(tmp_path)
    explained = explain(models, ligand, protein, GRAPH_SETTINGS)
    expected = expected_pk(models, ligand, protein)
    constant = np.mean([model.constant.item() for model in models])
    assert explained.pk == pytest.approx(expected, abs=1e-4)
    assert explained.constant == pytest.approx(constant, abs=1e-5)
    for values in (explained.of_ligand_atoms(), explained.of_residues()):
        assert values.sum() == pytest.approx(expected - constant, abs=1e-4)
        assert np.abs(values).max() > 0.1  # zeros would add up too
    assert sum(share.pk for share in explained.residue_shares()) == pytest.approx(expected - constant, abs=1e-4)
    assert explained.num_models == num_models


def test_a_joined_model_is_explained_as_a_whole(tmp_path: Path) -> None:
    process = fit_gaussian_process([random_batch(12, 1)], 6.0)
    model, (ligand, protein) = JoinedModel(random_model(), process, 0.6).eval(), read(tmp_path)
    explained = explain([model], ligand, protein, GRAPH_SETTINGS)
    assert explained.pk == pytest.approx(expected_pk([model], ligand, protein), abs=1e-4)
    assert explained.constant == pytest.approx(0.4 * model.network.constant.item() + 0.6 * process.intercept, abs=1e-5)
    assert explained.of_residues().sum() == pytest.approx(explained.pk - explained.constant, abs=1e-4)


def test_a_contact_counts_for_its_own_atom_and_residue(tmp_path: Path) -> None:
    """A model that gives 1 pK to each contact counts them; the count is made anew from the text of the files."""

    class Counting(AffinityModel):
        def contributions(self, batch: object) -> object:
            parts = super().contributions(batch)
            return parts._replace(pk=torch.ones_like(parts.pk))

    explained = explain([Counting(tiny_settings())], *read(tmp_path), GRAPH_SETTINGS)
    ligand = np.array([atom[1:] for atom in LIGAND])
    of_atoms = np.zeros(len(LIGAND))
    of_residues = {}
    for name, chain, number, atoms in RESIDUES:
        distance = np.linalg.norm(ligand[:, None] - np.array([atom[2:] for atom in atoms])[None], axis=2)
        near = distance <= 6.0
        if name != "HOH" and near.any():
            of_atoms += near.sum(axis=1)
            of_residues[ResidueId(chain, name, number, "")] = (near.sum(), round(distance.min(), 3))
    assert explained.of_ligand_atoms().tolist() == of_atoms.tolist()
    shares = explained.residue_shares()
    assert {s.residue: (s.num_contacts, round(s.closest, 3)) for s in shares} == of_residues
    assert [s.pk for s in shares] == sorted((float(count) for count, _ in of_residues.values()), reverse=True)
    assert {s.residue.name for s in shares} == {"ASP", "ALA", "ZN"}


def test_the_pocket_is_that_of_the_graph_where_waters_and_a_copy_of_the_ligand_are_left_out(tmp_path: Path) -> None:
    copy = ("ACM", "A", 0, [(f"{z}{i}", z, *xyz) for i, (z, *xyz) in enumerate(LIGAND)])
    ligand, protein = read(tmp_path, pdb=complex_pdb([copy, *RESIDUES]))
    graph, notes = build_graph("x", ligand, protein, GRAPH_SETTINGS)
    pocket = pocket_atoms(ligand, protein, GRAPH_SETTINGS)
    assert any("ACM" in note for note in notes)
    pos = torch.from_numpy((pocket.pos - ligand.atoms.pos.mean(axis=0)).astype(np.float32))
    assert torch.equal(graph.pos[graph.num_ligand_atoms :], pos)
    assert [residue.name for residue in pocket.residue_ids] == ["ASP", "ALA", "GLY", "ZN"]


def test_a_ligand_without_contacts_is_explained_by_the_constant(tmp_path: Path) -> None:
    explained = explain([random_model()], *read(tmp_path, sdf=ligand_sdf(shift=(200.0, 0, 0))), GRAPH_SETTINGS)
    assert explained.pk == explained.constant
    assert explained.residue_shares() == []
    assert write(tmp_path / "out", explained).is_file()
    assert "No residues in contact" in (tmp_path / "out" / "0001_acetamide" / "explanation.html").read_text()


# The ligand


@pytest.mark.parametrize(
    "smiles",
    ["Cc1c[nH]cn1", "O=[N+]([O-])c1ccc2[nH]ccc2c1", "CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)NCC#N", "CS(=O)(=O)N"],
)
def test_the_molecule_is_that_of_the_file_atom_by_atom(tmp_path: Path, smiles: str) -> None:
    ligand, pos = embedded(tmp_path, smiles)
    mol = ligand.mol
    assert Chem.MolToSmiles(mol) == Chem.CanonSmiles(smiles)
    assert mol.GetConformer().GetPositions() == pytest.approx(pos, abs=1e-3)
    assert [atom.GetAtomicNum() for atom in mol.GetAtoms()] == ligand.atoms.features[:, 0].tolist()


def embedded(folder: Path, smiles: str) -> tuple[Ligand, np.ndarray]:
    from rdkit.Chem.rdDistGeom import EmbedMolecule

    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert EmbedMolecule(mol, randomSeed=1) == 0
    # Another order than that of the SMILES.
    mol = Chem.RenumberAtoms(mol, list(reversed(range(mol.GetNumAtoms()))))
    (folder / "l.sdf").write_text(Chem.MolToMolBlock(mol) + "\n$$$$\n")
    heavy = [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() > 1]
    return read_ligand([folder / "l.sdf"]), mol.GetConformer().GetPositions()[heavy]


def test_a_molecule_that_could_be_sanitised_only_in_part_is_written_and_drawn(explained: Attribution) -> None:
    mol = Chem.RWMol(explained.mol)
    for bond in mol.GetBonds():
        bond.SetBondType(Chem.BondType.AROMATIC)
    changed = replace(explained, mol=mol.GetMol())
    assert "V2000" in sdf_text(changed)
    assert drawing(changed).count("<ellipse") == len(explained.ligand)


def test_rdkit_reads_the_contributions_onto_the_atoms(explained: Attribution) -> None:
    supplier = Chem.SDMolSupplier()
    supplier.SetData(sdf_text(explained))
    (mol,) = supplier
    values = [atom.GetDoubleProp("pK_contribution") for atom in mol.GetAtoms()]
    assert values == pytest.approx(explained.of_ligand_atoms().tolist(), abs=1e-6)
    assert mol.GetConformer().GetPositions() == pytest.approx(explained.ligand.pos, abs=1e-4)
    assert float(mol.GetProp("pK")) == pytest.approx(float(mol.GetProp("pK_constant")) + sum(values), abs=1e-4)
    assert mol.GetProp("_Name") == "acetamide"


def test_a_long_list_of_contributions_is_read_back(tmp_path: Path) -> None:
    ligand, _ = embedded(tmp_path, "C" * 60)
    (tmp_path / "p.pdb").write_text(complex_pdb())
    explained = explain([random_model()], ligand, read_protein(tmp_path / "p.pdb"), GRAPH_SETTINGS)
    text = sdf_text(explained)
    assert max(map(len, text.splitlines())) <= 200
    supplier = Chem.SDMolSupplier()
    supplier.SetData(text)
    values = [atom.GetDoubleProp("pK_contribution") for atom in next(supplier).GetAtoms()]
    assert sum(values) == pytest.approx(explained.total, abs=1e-4)


def test_the_drawing_is_blue_where_the_pk_is_raised_and_orange_where_it_is_lowered(explained: Attribution) -> None:
    # Acetamide: atom 0 raises, atom 3 lowers by half as much, the others do nothing.
    weights = np.where(explained.ligand_atom == 0, 1.0, np.where(explained.ligand_atom == 3, -1.0, 0.0))
    counts = np.bincount(explained.ligand_atom, minlength=4)
    scale = np.array([1.0, 1.0, 1.0, 0.5]) / np.maximum(counts, 1)
    svg = drawing(replace(explained, contact_pk=weights * scale[explained.ligand_atom]))
    ElementTree.fromstring(svg)
    circles = dict(re.findall(r"<ellipse[^>]*class='atom-(\d+)'[^>]*style='fill:(#\w{6})", svg))
    assert circles == {"0": "#2B7BBA", "1": "#FFFFFF", "2": "#FFFFFF", "3": "#EFC097"}
    assert "class='note'" in svg


def test_the_numbers_of_the_drawing_have_their_signs(explained: Attribution) -> None:
    """Each character is one outline; RDKit leaves an empty one for a letter that it cannot draw."""
    counts = np.bincount(explained.ligand_atom, minlength=4)
    for sign in (-1.0, 1.0):
        svg = drawing(replace(explained, contact_pk=sign / counts[explained.ligand_atom]))
        outlines = re.findall(r"<path class='note' d='([^']*)'", svg)
        assert len(outlines) == 4 * len("1:-1.00")
        assert all(outline.startswith("M") for outline in outlines)


def test_a_very_large_ligand_is_not_drawn(explained: Attribution, monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawing(explained) is not None
    monkeypatch.setattr("src.explanation.page.MAX_DRAWN_ATOMS", 3)
    assert MAX_DRAWN_ATOMS > 3
    assert drawing(explained) is None
    assert "No drawing" in page(explained, Score("m", "p", "l"), svg=None)


# The protein


def test_the_b_factors_are_the_contributions(explained: Attribution, tmp_path: Path) -> None:
    text = pdb_text(explained)
    scale = b_factor_scale(explained)
    assert f"B-FACTOR = {scale} X CONTRIBUTION IN PK UNITS" in text
    atoms = [line for line in text.splitlines() if line.startswith(("ATOM", "HETATM"))]
    ligand = [float(line[60:66]) for line in atoms if line[17:20] == "LIG"]
    assert ligand == pytest.approx((scale * explained.of_ligand_atoms()).tolist(), abs=0.0051)
    of_residue = {(share.residue.name, share.residue.number): scale * share.pk for share in explained.residue_shares()}
    for line in atoms:
        if line[17:20] != "LIG":
            expected = of_residue.get((line[17:20].strip(), int(line[22:26])), 0.0)
            assert float(line[60:66]) == pytest.approx(expected, abs=0.0051)
    (tmp_path / "complex.pdb").write_text(text)
    again = read_protein(tmp_path / "complex.pdb").atoms
    assert len(again) == len(explained.pocket) + len(explained.ligand)
    assert set(again.residue_ids) > set(explained.pocket.residue_ids)


@pytest.mark.parametrize("size", [1e-4, 0.05, 0.5, 5.0, 300.0])
def test_every_scale_fits_into_its_column(explained: Attribution, size: float) -> None:
    pk = explained.contact_pk * size / np.abs(explained.of_ligand_atoms()).max()
    changed = replace(explained, contact_pk=pk)
    for line in pdb_text(changed).splitlines():
        if line.startswith(("ATOM", "HETATM")):
            assert len(line) == 78
            assert abs(float(line[60:66])) <= MAX_B
    if size < 90:
        assert b_factor_scale(changed) * np.abs(changed.of_ligand_atoms()).max() <= MAX_B
    minimum, maximum = re.search(r"minimum=(\S+), maximum=(\S+)", pymol_text(changed)).groups()
    assert 0.01 <= float(maximum) == -float(minimum) <= MAX_B


def test_names_and_numbers_that_a_pdb_file_cannot_hold_are_explained_in_remarks(explained: Attribution) -> None:
    odd = [
        ResidueId("AA", "ASP", -1005, ""),
        ResidueId("A", "A1BCD", 11, "B"),
        ResidueId("", "GLY", 123_456, ""),
        ResidueId("\n'", "ZN", 1, ""),
    ]
    pocket = replace(explained.pocket, residue_ids=tuple(odd), pos=explained.pocket.pos + 2e4)
    changed = replace(explained, pocket=pocket, ligand=replace(explained.ligand, pos=explained.ligand.pos + 2e4))
    lines = pdb_text(changed).splitlines()
    atoms = [line for line in lines if line.startswith(("ATOM", "HETATM"))]
    assert {len(line) for line in atoms} == {78}
    assert len({line[21] for line in atoms}) == 5  # four chains and the ligand
    assert max(abs(float(line[30:38])) for line in atoms) < 100
    remarks = "\n".join(line for line in lines if line.startswith("REMARK"))
    for text in ("IS CHAIN 'AA' OF THE FILE", "A1B11 IS A1BCD11", "GLY3456 IS GLY123456", "SHIFTED BY"):
        assert text in remarks
    assert [line[0:6].strip() for line in lines if line[0:6].strip() not in ("ATOM", "HETATM", "CONECT", "REMARK")] == [
        "TER",
        "END",
    ]


def test_rows_of_residues_are_numbers_that_a_spreadsheet_adds_up(explained: Attribution, tmp_path: Path) -> None:
    folder = write(tmp_path / "out", explained).parent
    with open(folder / "residues.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sum(float(row["contribution_pK"]) for row in rows) == pytest.approx(explained.total, abs=1e-4)
    assert any(row["contribution_pK"].startswith("-") for row in rows)
    assert {row["residue"] + row["number"] for row in rows} == {"ASP10", "ALA11", "ZN201"}
    negative = replace(explained.pocket, residue_ids=tuple(r._replace(number=-5) for r in explained.pocket.residue_ids))
    assert residue_rows(replace(explained, pocket=negative))[0][2] == -5


# The folder and the page


def write(folder: Path, explained: Attribution, number: int = 1, **sure: object) -> Path:
    return write_explanation(folder, number, explained, Score("best & only", "<b>p</b>.pdb", "l&l.sdf", **sure))


def test_the_folder_of_a_pose_has_all_files_and_a_safe_name_of_its_own(explained: Attribution, tmp_path: Path) -> None:
    evil = replace(explained, name='../../etc/"x", <script>alert(1)</script>')
    pages = [write(tmp_path, evil, number) for number in (1, 2)]
    pages.append(write(tmp_path, replace(explained, name="§§"), 3))
    assert [path.parent.parent for path in pages] == [tmp_path] * 3
    assert [path.parent.name for path in pages][2] == "0003_ligand"
    assert pages[0].parent.name == "0001_etc_x_script_alert_1_script"
    assert {path.name for path in pages[0].parent.iterdir()} == {
        "complex.pdb",
        "complex.pml",
        "explanation.html",
        "ligand.sdf",
        "ligand.svg",
        "residues.csv",
    }


def attributions() -> PoseAttributions:
    return PoseAttributions([random_model()], GRAPH_SETTINGS, "cpu")


def test_many_poses_are_explained_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(tmp_path, sdf=ligand_sdf("<script>") + ligand_sdf("b", shift=(0.1, 0, 0)))
    times_read = []
    monkeypatch.setattr(
        "src.explanation.explainer.read_protein", lambda path: times_read.append(path) or read_protein(path)
    )
    models = [random_model(0), random_model(1)]
    explainer = Explainer(tmp_path / "out", PoseAttributions(models, GRAPH_SETTINGS, "cpu"), model_name="two")
    poses = list(iter_poses(tmp_path / "p.pdb", [tmp_path / "l.sdf"]))
    found = [explainer.add(pose, number) for number, pose in enumerate(poses, start=1)]
    assert len(times_read) == 1
    expected = [expected_pk(models, ligand_of(pose.record), read_protein(pose.protein)) for pose in poses]
    assert [one.pk for one in found] == pytest.approx(expected, abs=1e-4)
    assert expected[0] != expected[1]
    index = explainer.close().read_text(encoding="utf-8")
    assert "<script>" not in index
    assert "href='0001_script/explanation.html'" in index
    assert f"<td>{expected[1]:.3f}</td>" in index


def test_the_list_of_poses_has_those_that_were_explained_before_a_stop(explained: Attribution, tmp_path: Path) -> None:
    evil = replace(explained, name="a, pK 9 <title>&")
    for number in (10_001, 2, 9):
        write(tmp_path, evil, number)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "explanation.html").write_text("something else")
    text = Explainer(tmp_path, attributions(), model_name="m").close().read_text(encoding="utf-8")
    assert re.findall(r"href='(\d+)_", text) == ["0002", "0009", "10001"]
    assert text.count(f">a, pK 9 &lt;title&gt;&amp;</a></th><td>{explained.pk:.3f}</td>") == 3
    assert "mine" not in text


def test_the_list_of_poses_says_how_sure_each_is(explained: Attribution, tmp_path: Path) -> None:
    write(tmp_path, explained, 1)
    write(tmp_path, explained, 2, interval=(4.26, 7.81), remarks=("unlike the training: <b>", "warning: 3 Å & away"))
    text = Explainer(tmp_path, attributions(), model_name="m").close().read_text(encoding="utf-8")
    pk = f"<td>{explained.pk:.3f}</td>"
    assert f"{pk}<td></td><td></td></tr>" in text
    assert f"{pk}<td>4.3 to 7.8</td><td>unlike the training: &lt;b&gt;; 3 Å &amp; away</td></tr>" in text
    assert "<th scope='col'>warnings</th>" in text


def test_what_an_earlier_run_explained_goes_and_nothing_else(explained: Attribution, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    write(out, explained, 1)
    kept = write(out, explained, 2).parent
    (kept / "my notes.txt").write_text("precious")
    (out / "0003_mine").mkdir()
    (out / "0003_mine" / "explanation.html").write_text("<title>something else</title>")
    write(elsewhere, explained, 4)
    (out / "0004_link").symlink_to(next(elsewhere.iterdir()))
    read(tmp_path)
    explainer = Explainer(out, attributions(), model_name="m", replaces=True)
    assert (out / "0001_acetamide" / "explanation.html").is_file()  # as long as nothing takes their place
    (pose,) = iter_poses(tmp_path / "p.pdb", [tmp_path / "l.sdf"])
    for number in (7, 8):
        explainer.add(pose, number)
    names = ["0002_acetamide", "0003_mine", "0004_link", "0007_acetamide", "0008_acetamide"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert [path.name for path in kept.iterdir()] == ["my notes.txt"]
    assert (elsewhere / "0004_acetamide" / "ligand.sdf").is_file()
    assert (out / "0003_mine" / "explanation.html").is_file()


def test_the_page_is_whole_and_escaped_and_has_its_sums(explained: Attribution, tmp_path: Path) -> None:
    name = '<script>alert("x")</script>'
    residue = explained.pocket.residue_ids[0]._replace(name="<q>", chain="<u>")
    pocket = replace(explained.pocket, residue_ids=(residue, *explained.pocket.residue_ids[1:]))
    text = write(tmp_path, replace(explained, name=name, pocket=pocket)).read_text(encoding="utf-8")
    for forbidden in ("<script", "<b>p</b>", "<u>", "<q>", "l&l", "best & only", "src=", "@import"):
        assert forbidden not in text, forbidden
    assert not re.findall(r"(?:href|url)\W{1,2}http", text)
    total = f"{explained.total:+.3f}".replace("-", "−")
    assert text.count(f"<td>{total}</td>") == 1
    assert f"<b>{explained.pk:.3f}</b>" in text
    assert "contribution (pK)" in text
    assert "closest (Å)" in text
    assert "must not be added" in text
    assert text.count("<svg") == 1


def test_the_page_says_how_sure_the_score_is(explained: Attribution, tmp_path: Path) -> None:
    sure = write(tmp_path, explained, 1).read_text(encoding="utf-8")
    assert "class='warning'" not in sure
    assert "interval" not in sure
    remarks = ("unlike the training: <elements>", "warning: ligand 3 Å away")
    unsure = write(tmp_path, explained, 2, interval=(4.26, 7.81), remarks=remarks).read_text(encoding="utf-8")
    assert "<span>90 % interval, pK</span><b>4.3 to 7.8</b>" in unsure
    assert "<p class='warning'>unlike the training: &lt;elements&gt;</p><p class='warning'>warning: ligand" in unsure


def test_the_script_for_pymol_names_no_file_of_the_user(explained: Attribution) -> None:
    evil = replace(explained, name="x\nquit\npython os.remove('/')")
    text = pymol_text(evil)
    assert "quit" not in text
    assert "load complex.pdb, complex" in text


def test_the_script_for_pymol_takes_no_cofactor_of_that_name_for_the_ligand(explained: Attribution) -> None:
    for chain in ("Z", "A"):
        ids = tuple(one._replace(name="LIG", number=1, chain=chain) for one in explained.pocket.residue_ids)
        changed = replace(explained, pocket=replace(explained.pocket, residue_ids=ids))
        atoms = [line for line in pdb_text(changed).splitlines() if line.startswith(("ATOM", "HETATM"))]
        selections = re.findall(r"\(chain (.) and resn (\w+) and resi (\d+)\)", pymol_text(changed))
        assert len(selections) == 4
        assert len(set(selections)) == 1
        found = [(line[21], line[17:20], line[22:26].strip()) for line in atoms].count(selections[0])
        assert found == len(explained.ligand) < len(atoms)
        assert "resn LIG" not in re.sub(r"\(.*?\)", "", pymol_text(changed))


# predict.py --explain


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "model.pth.tar", small_settings(tmp_path))


def score(folder: Path, checkpoint: Path, *options: str) -> int:
    read(folder, sdf=ligand_sdf("a") + ligand_sdf("b").replace("0.0000", "zero", 1) + ligand_sdf("c", shift=(60, 0, 0)))
    files = ["--protein_path", str(folder / "p.pdb"), "--ligand_path", str(folder / "l.sdf")]
    return scoring_program.main([*files, "--checkpoint", str(checkpoint), *options])


@pytest.mark.parametrize(("options", "names"), [([], ["0001_a", "0003_c"]), (["--top", "1"], ["0001_"])])
def test_every_scored_pose_gets_its_folder(
    tmp_path: Path, checkpoint: Path, options: list[str], names: list[str]
) -> None:
    output, why = tmp_path / "scores.csv", tmp_path / "why"
    assert score(tmp_path, checkpoint, "--output", str(output), "--explain", str(why), *options) == 0
    found = sorted(path.name for path in why.iterdir() if path.is_dir())
    assert len(found) == len(names)
    assert all(name.startswith(start) for name, start in zip(found, names, strict=True))
    with open(output, newline="", encoding="utf-8") as file:
        scored = [row for row in csv.DictReader(file) if row["status"] == "ok"]
    rows = {row["ligand"]: float(row["pK"]) for row in scored}
    warned = {row["ligand"]: row["warnings"].split("; ") for row in scored if row["warnings"]}
    assert ("c" in warned) == ("c" in rows)  # it is far away from everything
    for name in found:
        (mol,) = Chem.SDMolSupplier(str(why / name / "ligand.sdf"))
        contributions = sum(atom.GetDoubleProp("pK_contribution") for atom in mol.GetAtoms())
        assert float(mol.GetProp("pK_constant")) + contributions == pytest.approx(rows[name[5:]], abs=6e-4)
        page_text = unescape((why / name / "explanation.html").read_text(encoding="utf-8"))
        assert all(warning in page_text for warning in warned.get(name[5:], ()))
    assert (why / "index.html").read_text(encoding="utf-8").count("explanation.html") == len(names)


def test_a_folder_with_files_is_not_mixed_up(
    tmp_path: Path, checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "why").mkdir()
    (tmp_path / "why" / "mine.txt").write_text("precious")
    assert score(tmp_path, checkpoint, "--explain", str(tmp_path / "why")) == 2
    assert "is not empty" in caplog.text
    assert [path.name for path in (tmp_path / "why").iterdir()] == ["mine.txt"]
    assert score(tmp_path, checkpoint, "--explain", str(tmp_path / "why"), "--overwrite") == 0
    assert (tmp_path / "why" / "mine.txt").read_text() == "precious"


def test_another_run_into_the_folder_replaces_the_first(tmp_path: Path, checkpoint: Path) -> None:
    why = tmp_path / "why"
    assert score(tmp_path, checkpoint, "--explain", str(why)) == 0
    assert (why / "0003_c").is_dir()
    (tmp_path / "l.sdf").write_text(ligand_sdf("other"))
    files = ["--protein_path", str(tmp_path / "p.pdb"), "--ligand_path", str(tmp_path / "l.sdf")]
    assert scoring_program.main([*files, "--checkpoint", str(checkpoint), "--explain", str(why), "--overwrite"]) == 0
    assert sorted(path.name for path in why.iterdir()) == ["0001_other", "index.html"]
    assert (why / "index.html").read_text(encoding="utf-8").count("explanation.html") == 1


def test_the_mean_of_several_models_is_explained(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "b").mkdir()
    other = tmp_path / "b" / "model.pth.tar"
    state = load_checkpoint(checkpoint)
    save_checkpoint(other, {**state, "model": {**state["model"], "pk_constant": torch.tensor(9.0)}})
    why = tmp_path / "why"
    assert score(tmp_path, checkpoint, str(other), "--explain", str(why)) == 0
    text = (why / "0001_a" / "explanation.html").read_text(encoding="utf-8")
    assert "mean of 2 models" in text
    assert "b/model.pth.tar" in text
