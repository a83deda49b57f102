"""Residues that share letter and number: alternatives of one residue, or two chains with one letter or none."""

from __future__ import annotations

import numpy as np
import pytest

from src.chemistry.atoms import StructureError
from src.chemistry.proteins import Protein, read_protein
from tests.chemistry.protein_texts import alanine, assert_same_atoms, line, moved
from tests.complexes import mmcif

SIDE_CHAINS = {"ALA": (), "SER": ("OG",), "CYS": ("SG",), "VAL": ("CG1", "CG2")}
PLACES = {
    "N": (0.0, 0.0, 0.0), "CA": (1.46, 0.0, 0.0), "C": (2.0, 1.42, 0.0), "O": (1.25, 2.39, 0.0),
    "CB": (2.0, -0.77, 1.2), "OG": (3.4, -0.8, 1.2), "SG": (3.7, -0.8, 1.2), "CG1": (3.5, -0.8, 1.2),
    "CG2": (1.5, -2.2, 1.2),
}  # fmt: skip


def residue(name: str, number: int = 1, x: float = 0.0, y: float = 0.0, *, without: tuple = (), **options) -> str:
    atoms = [atom for atom in ("N", "CA", "C", "O", "CB", *SIDE_CHAINS[name]) if atom not in without]
    places = {atom: (PLACES[atom][0] + x, PLACES[atom][1] + y, PLACES[atom][2]) for atom in atoms}
    return "".join(line(atom, name, number, xyz, **options) for atom, xyz in places.items())


def with_segid(text: str, segid: str) -> str:
    return "".join(f"{row[:72]}{segid:<4}{row[76:]}" for row in text.splitlines(keepends=True))


@pytest.fixture
def read(tmp_path):
    def _read(text: str, **options: object) -> Protein:
        (tmp_path / "some.pdb").write_text(text)
        return read_protein(tmp_path / "some.pdb", **options)

    return _read


def chains(letters: str, *, second: str = "CYS") -> tuple[str, str]:
    """Two chains of three residues with the same numbers, 12 Å apart."""
    one = "".join(residue(name, n, 3.8 * n, chain=letters[0]) for n, name in enumerate(("ALA", "SER", "VAL")))
    other = "".join(residue(name, n, 3.8 * n, 12.0, chain=letters[1]) for n, name in enumerate(("SER", "SER", second)))
    return one, other


@pytest.mark.fault("H7", "H13")
@pytest.mark.parametrize("letter", ["A", " "])
@pytest.mark.parametrize("way", ["segid", "ter", "distance", "interleaved", "shuffled"])
@pytest.mark.parametrize("form", [str, mmcif])
def test_two_chains_with_one_letter_or_none_are_two_chains(read, letter, way, form):
    one, other = chains(2 * letter)
    text = {
        "segid": with_segid(one, "PROA") + with_segid(other, "PROB"),
        "ter": f"{one}TER\n{other}TER\n",
        "distance": one + other,
        "interleaved": "".join(row for n in range(3) for row in (_of(one, n) + _of(other, n))),
        "shuffled": "".join(np.random.default_rng(0).permutation((one + other).splitlines(keepends=True))),
    }[way]
    found = read(form(text.replace("TER\n", "")) if form is mmcif else text)
    right = read("".join(chains("AB")))
    atoms = sorted(zip(found.atoms.pos.tolist(), found.atoms.features.tolist(), found.atoms.atom_names, strict=True))
    assert atoms == sorted(
        zip(right.atoms.pos.tolist(), right.atoms.features.tolist(), right.atoms.atom_names, strict=True)
    )
    assert len(found.atoms.residue_labels) == 6
    assert found.atoms.bonds.shape == right.atoms.bonds.shape
    assert found.notes == ()


def _of(text: str, number: int) -> str:
    return "".join(row for row in text.splitlines(keepends=True) if int(row[22:26]) == number)


@pytest.mark.fault("H7")
def test_sixty_and_more_chains_without_letters(read):
    text = "".join(residue("SER", n, 5.0 * n, 6.0 * copy, chain=" ") for copy in range(70) for n in range(3))
    assert len(read(text).atoms.residue_labels) == 210
    near = read(text, near=np.array([[5.0, 60.0, 0.0]]), radius=3.0)
    assert 0 < len(near.atoms.residue_labels) < 12


@pytest.mark.fault("H13")
def test_residues_of_one_number_that_overlap_are_alternatives(read):
    """Without letters the first is used, and the other is named."""
    for shift in (0.0, 0.3, 0.9):
        protein = read(residue("SER") + residue("VAL", x=shift))
        assert protein.atoms.residue_labels == ("A:SER1",)
        assert protein.notes == ("two residues at A:1: SER used, VAL dropped",)
    beside = read(residue("SER") + residue("VAL", x=0.9) + residue("VAL", x=30.0))
    assert beside.atoms.residue_labels == ("A:SER1", "A:VAL1")
    assert beside.notes == ("two residues at A:1: SER used, VAL dropped",)


@pytest.mark.fault("H1", "H13")
def test_residues_of_one_number_with_other_letters_are_alternatives_wherever_they_lie(read):
    for x in (0.0, 5.0):
        text = residue("SER", altloc="A", occupancy="  0.40") + residue("VAL", x=x, altloc="B", occupancy="  0.60")
        protein = read(text)
        assert protein.atoms.residue_labels == ("A:VAL1",)
        assert protein.notes == ("1 residue with alternative locations, one conformer of each used",)


@pytest.mark.fault("H1", "H13")
def test_letters_count_within_each_of_two_chains(read):
    """Each chain has its own conformers, and its own most frequent letter."""
    one = residue("SER", altloc="A", occupancy="  0.60") + residue("VAL", altloc="B", occupancy="  0.40")
    other = residue("SER", x=20, altloc="A", occupancy="  0.30") + residue("VAL", x=20, altloc="B", occupancy="  0.70")
    protein = read(one + other)
    assert protein.atoms.residue_labels == ("A:SER1", "A:VAL1")
    assert protein.atoms.pos[:, 0].max() > 20.0 > protein.atoms.pos[:6, 0].max()
    coexisting = residue("SER", altloc="A") + residue("VAL", x=20, altloc="A")
    assert read(coexisting).atoms.residue_labels == ("A:SER1", "A:VAL1")


@pytest.mark.fault("H1", "H7")
def test_conformers_of_one_chain_beside_another_chain_without(read):
    one = residue("SER", altloc="A", occupancy="  0.40") + residue("SER", x=0.2, altloc="B", occupancy="  0.60")
    for text in (one + residue("SER", x=20), residue("SER", x=20) + one):
        protein = read(text)
        assert protein.atoms.residue_labels == ("A:SER1", "A:SER1")
        assert sorted({x > 10 for x in protein.atoms.pos[:6, 0]}) in ([False], [True])
        assert min(protein.atoms.pos[:, 0].tolist()) == 0.2


@pytest.mark.fault("H7")
def test_neighbours_that_lost_their_insertion_codes_are_both_kept(read):
    """52 and 52A of an antibody, both written 52: a peptide bond is no overlap."""
    protein = read(alanine(52) + alanine(52, 4.1))
    assert len(protein.atoms) == 10
    assert protein.atoms.bonds.shape[1] == 4 + 4 + 1


def test_a_disulfide_between_two_chains_with_one_letter(read):
    """CYS 1 of both: their sulfurs are 2.05 Å apart, and they are two residues."""
    one = residue("CYS", without=("SG",)) + line("SG", "CYS", xyz=(3.7, -0.8, 1.2))
    other = moved(residue("CYS", without=("SG",)), (20.0, 0.0, 0.0)) + line("SG", "CYS", xyz=(5.75, -0.8, 1.2))
    other = "".join(
        row[:30] + f"{9.45 - float(row[30:38]) + 20 * (float(row[30:38]) > 9):8.3f}" + row[38:]
        for row in other.splitlines(keepends=True)
    ).replace(f"{9.45 - 5.75:8.3f}", f"{5.75:8.3f}")
    protein = read(one + other)
    assert protein.atoms.residue_labels == ("A:CYS1", "A:CYS1")
    assert [len(np.flatnonzero(protein.atoms.residue_index == n)) for n in range(2)] == [6, 6]
    sulfurs = [n for n, name in enumerate(protein.atoms.atom_names) if name == "SG"]
    assert sulfurs in protein.atoms.bonds.T.tolist()


def test_a_piece_that_is_cut_off_stays_with_its_residue(read):
    """Without CB, OG touches no other atom of its residue."""
    two = [residue("SER", x=x, without=("CB",)) for x in (0.0, 9.0)]
    protein = read("".join(two))
    assert protein.atoms.residue_labels == ("A:SER1", "A:SER1")
    assert [len(np.flatnonzero(protein.atoms.residue_index == n)) for n in range(2)] == [5, 5]


@pytest.mark.fault("H13")
def test_conformers_without_letters_are_one_residue(read):
    """A side chain in two places: the first is used, and that is said."""
    protein = read(residue("SER") + line("OG", "SER", xyz=(1.2, -2.0, 1.2)))
    assert len(protein.atoms) == 6
    assert protein.notes == ("1 duplicate atom, first used",)


def with_names(text: str, name: str) -> str:
    counts: dict[tuple[str, str], int] = {}
    rows = []
    for row in text.splitlines(keepends=True):
        key = (row[20:27], row[76:78])
        counts[key] = counts.get(key, 0) + 1
        new = name.format(element=row[76:78].strip(), number=counts[key])
        rows.append(f"{row[:12]} {new:<3}{row[16:]}")
    return "".join(rows)


@pytest.mark.fault("H7")
@pytest.mark.parametrize("name", ["{element}", "{element}{number}"])
@pytest.mark.parametrize("form", [str, mmcif])
def test_names_that_are_elements_or_numbers_are_refused(read, name, form):
    """As Open Babel writes them; nothing is known of such atoms but their elements."""
    text = with_names(residue("ALA") + residue("SER", 2, 12.0), name)
    with pytest.raises(StructureError, match=r"some\.pdb: the atoms of residue ALA A:1 are named N1?, .*needs the n"):
        read(form(text))


@pytest.mark.parametrize("form", [str, mmcif])
def test_bare_names_of_side_chains_are_refused(read, form):
    """The backbone has its names, all other carbons are C."""
    text = "".join(row.replace(" CB ", " C  ") for row in (residue("SER") + residue("VAL", 2, 12.0)).splitlines(True))
    with pytest.raises(StructureError, match="residue SER A:1 are named N, CA, C, O, OG; a protein needs the names"):
        read(form(text))


def test_a_few_unknown_names_are_said(read):
    text = residue("ALA").replace(" CB ", " C7 ")
    assert read(text).notes == ("1 atom of an amino acid with an unknown name: nothing but the element is used",)
    assert read(residue("ALA")).notes == ()


def test_bare_names_of_nucleotides_are_refused(read):
    names = ["P", "O", "O", "C", "C", "C", "N"]
    text = "".join(line(name, " DA", xyz=(1.5 * n, 0, 0)) for n, name in enumerate(names))
    with pytest.raises(StructureError, match="residue DA A:1 are named P, O, C"):
        read(text)


def test_a_cofactor_with_elements_for_names_keeps_its_atoms(read):
    """Nothing but elements is known of a cofactor anyway, so none of its atoms is dropped as a duplicate."""
    names = ["C", "C", "C", "N", "O", "C"]
    cofactor = "".join(line(name, "UNL", 7, (1.5 * n, 20, 0), record="HETATM") for n, name in enumerate(names))
    protein = read(residue("ALA") + cofactor + moved(cofactor, (0.0, 20.0, 0.0)))
    assert protein.atoms.residue_labels == ("A:ALA1", "A:UNL7", "A:UNL7")
    assert len(protein.atoms) == 5 + 12
    assert protein.notes == ()


def test_residues_that_differ_from_the_table_a_little_are_read(read):
    """Names of other programs, and few atoms."""
    last = residue("ALA").replace(" O   ALA", " OT1 ALA") + line("OT2", xyz=(3.2, 1.6, 0))
    assert len(read(last).atoms) == 6
    assert len(read(line("N1") + line("C1", xyz=(1.4, 0, 0))).atoms) == 2


@pytest.mark.parametrize("form", [str, mmcif])
def test_more_atoms_in_one_place_than_any_structure_has_are_refused(read, form):
    """Looking at all pairs of such atoms would take hours."""
    text = "".join(alanine(n % 9999, chain=chr(65 + n // 9999)) for n in range(400))
    with pytest.raises(StructureError, match=r"some\.pdb: \d+ heavy atoms lie within 2 Å of \(1.4, 0, 0\)"):
        read(form(text))
    letters = "".join(residue("SER", altloc=letter) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert_same_atoms(read(letters).atoms, read(residue("SER")).atoms)
