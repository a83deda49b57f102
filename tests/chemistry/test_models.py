"""Models that show one molecule again, and models that are molecules of their own."""

from __future__ import annotations

import numpy as np
import pytest

from src.chemistry.proteins import Protein, read_protein
from tests.chemistry.protein_texts import alanine, assert_same_atoms, line, moved
from tests.complexes import mmcif


def chain(x: float = 0.0, *, letter: str = "A", length: int = 12, first: int = 1) -> str:
    """Alanines in a straight line along x."""
    return "".join(alanine(first + n, x + 5.5 * n, chain=letter) for n in range(length))


def pdb(models: list[str]) -> str:
    return "".join(f"MODEL     {n:>4}\n{text}ENDMDL\n" for n, text in enumerate(models, start=1)) + "END\n"


def cif(models: list[str]) -> str:
    """The rows of each model in one table."""
    start, _, end = mmcif(models[0]).partition("model_num\n")
    rows = [mmcif(text, str(n)).partition("model_num\n")[2].partition("#\n")[0] for n, text in enumerate(models, 1)]
    return f"{start}model_num\n{''.join(rows)}#\n{end.partition('#')[2]}"


FORMS = pytest.mark.parametrize("form", [pdb, cif])


@pytest.fixture
def read(tmp_path):
    def _read(text: str, **options: object) -> Protein:
        (tmp_path / "some.pdb").write_text(text)
        return read_protein(tmp_path / "some.pdb", **options)

    return _read


@FORMS
@pytest.mark.parametrize("count", [2, 12, 60])
def test_the_copies_of_an_assembly_are_all_read(read, form, count):
    """One letter and the same numbers in every model, 10 Å apart, as RCSB writes .pdb1."""
    protein = read(form([moved(chain(), (0.0, 10.0 * n, 0.0)) for n in range(count)]))
    assert len(protein.atoms) == count * 60
    assert protein.atoms.bonds.shape[1] == count * (12 * 4 + 11)
    assert protein.notes == (f"{count} models that lie apart, all used",)
    assert not protein.is_whole or len(protein.atoms.residue_labels) == count * 12


@FORMS
def test_chains_of_their_own_in_models_are_all_read(read, form):
    protein = read(form([chain(), moved(chain(letter="B", length=5, first=40), (0.0, 8.0, 0.0))]))
    assert {label[0] for label in protein.atoms.residue_labels} == {"A", "B"}
    assert protein.notes == ("2 models that lie apart, all used",)


@FORMS
@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_of_an_ensemble_the_first_model_is_read(read, form, noise):
    models = [moved(chain(), noise=noise, seed=n) for n in range(20)]
    protein = read(form(models))
    assert_same_atoms(protein.atoms, read(models[0]).atoms)
    assert protein.notes == ("20 models, first used",)


@FORMS
def test_models_of_another_shape_are_no_copies_wherever_they_lie(read, form):
    """Disordered tails of an ensemble that was superposed on something else."""
    models = [moved(chain(), (0.0, 30.0 * n, 0.0), noise=6.0 * n, seed=n) for n in range(3)]
    protein = read(form(models))
    assert_same_atoms(protein.atoms, read(models[0]).atoms)
    assert protein.notes == ("3 models, first used",)


def test_an_ensemble_and_a_copy_of_it(read):
    models = [moved(chain(), (0.0, y, 0.0), noise=0.3, seed=n) for n, y in enumerate((0.0, 0.0, 20.0, 20.0))]
    protein = read(pdb(models))
    assert len(protein.atoms) == 2 * 60
    assert protein.notes == ("4 models, 2 that lie apart used",)


def test_what_lies_on_the_axis_of_an_assembly_counts_once(read):
    zinc = line("ZN  ", " ZN", 90, (0.0, -5.0, 0.0), element="ZN", record="HETATM")
    protein = read(pdb([chain() + zinc, moved(chain(), (0.0, 10.0, 0.0)) + zinc]))
    assert [label for label in protein.atoms.residue_labels if "ZN" in label] == ["A:ZN90"]
    assert protein.notes == ("2 models that lie apart, all used", "1 duplicate atom, first used")


@pytest.mark.fault("H11")
def test_frames_between_which_stands_end_are_an_ensemble(read):
    """VMD and gmx trjconv can leave out MODEL; the rest of a molecule behind END is read nevertheless."""
    frames = [moved(chain(), noise=0.3, seed=n) for n in range(5)]
    protein = read("END\n".join(frames))
    assert_same_atoms(protein.atoms, read(frames[0]).atoms)
    assert protein.notes == ("5 models, first used",)
    rest = read(frames[0] + "END\n" + line("O", "HOH", 5, (0.0, 3.0, 3.0), record="HETATM") + "END\n")
    assert len(rest.atoms) == 61
    assert rest.notes == ()


def test_hydrogens_alone_are_no_model(read):
    protein = read(pdb([chain(), line("H", xyz=(50, 0, 0))]))
    assert_same_atoms(protein.atoms, read(chain()).atoms)
    assert protein.notes == ()


@FORMS
def test_near_a_ligand_an_assembly_is_read_as_in_full(read, form):
    text = form([moved(chain(), (0.0, 7.0 * n, 0.0)) for n in range(6)])
    near = read(text, near=np.array([[20.0, 12.0, 0.0]]), radius=8.0)
    kept = {tuple(place) for place in read(text).atoms.pos.tolist()}
    assert 0 < len(near.atoms) < len(kept)
    assert {tuple(place) for place in near.atoms.pos.tolist()} < kept
    assert len({round(y) // 7 for y in near.atoms.pos[:, 1].tolist()}) > 1  # of several models
