"""Sequences from SEQRES records and from residues, and the file that keeps them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from src.chemistry.atoms import StructureError
from src.pdbbind.folders import ComplexFiles
from src.settings import ProcessingSettings
from src.similarity import sequences as descriptions
from src.similarity.sequences import Chains, describe, read_chains
from src.system.locks import FolderInUseError, sole_use
from src.system.storage import write_text
from tests.complexes import pdb_text

POCKET = "DA" + "X" * 18 + "G" + "X" * 59 + "K"  # ASP 10, ALA 11, GLY 30, LYS 90; zinc and water are no residues


def files(folder: Path, code: str = "1abc", *, protein: str | None = None, pocket: str | None = None) -> ComplexFiles:
    paths = {}
    for name, text in (("protein", protein), ("pocket", pocket)):
        paths[name] = folder / f"{code}_{name}.pdb" if text is not None else None
        if text is not None:
            paths[name].write_text(text)
    return ComplexFiles(code, paths["protein"], paths["pocket"], ())


def atom(
    residue: str, chain: str, number: int, *, record: str = "ATOM", altloc: str = " ", insertion: str = " "
) -> str:
    place = f"{altloc}{residue:>3} {chain}{number:>4}{insertion}"
    return f"{record:<6}{1:>5}  CA {place}      1.000   2.000   3.000  1.00 10.00\n"


@pytest.fixture
def processing(tmp_path: Path) -> ProcessingSettings:
    return ProcessingSettings(str(tmp_path / "processed"), 0, 60.0, 4.0)


def test_a_pocket_keeps_the_distances_along_its_chain(tmp_path: Path) -> None:
    assert read_chains(files(tmp_path, pocket=pdb_text())) == Chains((POCKET,), "pocket")


def test_the_protein_is_read_where_there_is_one(tmp_path: Path) -> None:
    both = files(tmp_path, protein=atom("TRP", "A", 1) + atom("TYR", "A", 2), pocket=pdb_text())
    assert read_chains(both) == Chains(("WY",), "protein")


def test_seqres_is_the_sequence_where_a_file_has_it(tmp_path: Path) -> None:
    seqres = (
        "SEQRES   1 A   15  MSE LYS PHE TRP ALA ALA ALA ALA ALA ALA ALA ALA ALA\n"
        "SEQRES   2 A   15  ABC GLY\n"  # an unknown residue
        "SEQRES   1 B    3   DA  DG  DC\n"
    )
    assert read_chains(files(tmp_path, protein=seqres + pdb_text())) == Chains(("MKFWAAAAAAAAAXG",), "seqres")


def test_chains_conformers_insertions_and_models(tmp_path: Path) -> None:
    text = "MODEL        1\n" + atom("SER", "B", 5, altloc="A") + atom("THR", "B", 5, altloc="B")
    text += (
        atom("GLY", "B", 5, insertion="A") + atom("MSE", "B", 6, record="HETATM") + atom(" CA", "B", 7, record="HETATM")
    )
    text += atom("LEU", "A", 1) + atom("ILE", "A", 2) + "ENDMDL\nMODEL        2\n" + atom("TRP", "C", 1)
    assert read_chains(files(tmp_path, protein=text)).sequences == ("LI", "SGM")


@pytest.mark.parametrize(("old", "new"), [("  CA  ", " CA   "), ("  CA  ", "   CA "), ("", "")])
def test_names_on_the_left_or_in_lower_case_are_read_as_the_graph_reads_them(
    tmp_path: Path, old: str, new: str
) -> None:
    calcium = atom(" CA", "A", 2, record="HETATM").replace("  CA  ", " CA   ")
    text = atom("SER", "A", 1) + calcium + "ENDMDL\n" + atom("TRP", "B", 1)
    assert read_chains(files(tmp_path, protein=text.replace(old, new))).sequences == ("S",)
    assert read_chains(files(tmp_path, protein=text.replace(old, new).lower())).sequences == ("S",)


def test_seqres_in_lower_case_is_read(tmp_path: Path) -> None:
    text = "seqres   1 a    2  mse lys\n" + atom("SER", "A", 1)
    assert read_chains(files(tmp_path, protein=text)) == Chains(("MK",), "seqres")


def test_a_far_jump_of_the_numbers_is_cut_short(tmp_path: Path) -> None:
    (sequence,) = read_chains(files(tmp_path, protein=atom("SER", "A", 1) + atom("THR", "A", 9000))).sequences
    assert sequence == "S" + "X" * descriptions.MAX_GAP + "T"


def test_mmcif_gives_the_sequence_of_its_residues(tmp_path: Path) -> None:
    columns = ["group_PDB", "type_symbol", "label_atom_id", "auth_comp_id", "auth_asym_id", "auth_seq_id"]
    rows = ["ATOM C CA SER A 1 1.0 2.0 3.0", "ATOM N N SER A 1 1.0 2.0 4.0", "ATOM C CA LYS A 4 1.0 2.0 9.0"]
    header = [f"_atom_site.{name}" for name in [*columns, "Cartn_x", "Cartn_y", "Cartn_z"]]
    path = tmp_path / "1abc_protein.cif"
    path.write_text("\n".join(["data_x", "loop_", *header, *rows, "#", ""]))
    assert read_chains(ComplexFiles("1abc", path, None, ())) == Chains(("SXXK",), "protein")


@pytest.mark.parametrize("text", ["", "<html>", atom("SER", "A", 1)[:22] + "  xy" + atom("SER", "A", 1)[26:]])
def test_a_damaged_file_has_no_sequence_and_is_named(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    chains = read_chains(files(tmp_path, protein=text))
    assert chains.sequences == ()
    if text:
        assert chains.origin == "none"
        assert "1abc_protein.pdb: its sequence is not known" in caplog.text


def test_a_complex_without_a_structure_has_no_sequence() -> None:
    assert read_chains(ComplexFiles("1abc", None, None, ())) == Chains((), "none")


def count_readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    read: list[str] = []
    monkeypatch.setattr(descriptions, "read_chains", lambda one: (read.append(one.code), read_chains(one))[1])
    return read


def test_a_file_is_read_again_only_when_it_has_changed(
    tmp_path: Path, processing: ProcessingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = count_readings(monkeypatch)
    both = [files(tmp_path, "1abc", pocket=pdb_text()), files(tmp_path, "2abc", protein=atom("SER", "A", 1))]
    first = describe(both, processing)
    assert first == {"1abc": Chains((POCKET,), "pocket"), "2abc": Chains(("S",), "protein")}
    assert describe(both, processing) == first
    assert read == ["1abc", "2abc"]
    both[1].protein.write_text(atom("SER", "A", 1) + atom("THR", "A", 2))
    assert describe(both, processing)["2abc"] == Chains(("ST",), "protein")
    assert read == ["1abc", "2abc", "2abc"]
    whole = replace(both[0], protein=both[1].protein)  # the whole protein has come
    assert describe([whole], processing)["1abc"].sequences == ("ST",)


def test_data_sets_with_the_same_codes_do_not_evict_each_other(
    tmp_path: Path, processing: ProcessingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = []
    for number, residues in enumerate((["SER"], ["SER", "THR"])):
        folder = tmp_path / f"set{number}"
        folder.mkdir()
        text = "".join(atom(residue, "A", place) for place, residue in enumerate(residues, start=1))
        sets.append(files(folder, protein=text))
    read = count_readings(monkeypatch)
    for _ in range(2):
        assert [describe([one], processing)["1abc"].sequences for one in sets] == [("S",), ("ST",)]
    assert read == ["1abc", "1abc"]


@pytest.mark.fault("F4")
def test_what_another_process_wrote_meanwhile_is_kept(
    tmp_path: Path, processing: ProcessingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = files(tmp_path, "1abc", pocket=pdb_text()), files(tmp_path, "2abc", pocket=pdb_text())
    begun: list[str] = []

    def read_slowly(asked: ComplexFiles) -> Chains:
        if not begun:
            begun.append(asked.code)
            describe([other], processing)
        return read_chains(asked)

    monkeypatch.setattr(descriptions, "read_chains", read_slowly)
    describe([one], processing)
    read = count_readings(monkeypatch)
    describe([one, other], processing)
    assert read == []


@pytest.mark.fault("F4")
def test_the_file_is_read_and_written_in_turn(
    tmp_path: Path, processing: ProcessingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(processing.processed_data_dir)

    def write_and_look(path: Path, text: str) -> None:
        with pytest.raises(FolderInUseError), sole_use({"processed_data_dir": folder}):
            pass
        write_text(path, text)

    monkeypatch.setattr(descriptions, "write_text", write_and_look)
    describe([files(tmp_path, pocket=pdb_text())], processing)
    assert (folder / "sequences.json").exists()


def test_a_file_that_could_not_be_read_is_read_again_though_it_has_not_changed(
    tmp_path: Path, processing: ProcessingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A permission that is given back changes neither size nor time."""
    one = [files(tmp_path, pocket=pdb_text())]

    def refuse(path: Path) -> bytes:
        raise StructureError("Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(descriptions, "read_bytes", refuse)
        assert describe(one, processing) == {"1abc": Chains((), "none")}
    assert describe(one, processing) == {"1abc": Chains((POCKET,), "pocket")}


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        "[]",
        json.dumps({"version": -1, "entries": {"1abc": {}}}),
        json.dumps({"version": descriptions.VERSION, "entries": []}),
        json.dumps(
            {"version": descriptions.VERSION, "entries": {"1abc": [{"source": 1, "sequences": ["b"], "origin": ""}]}}
        ),
        json.dumps({"version": descriptions.VERSION, "entries": {"1abc": None}}),
    ],
)
def test_a_damaged_cache_is_made_again(tmp_path: Path, processing: ProcessingSettings, damage: str) -> None:
    one = [files(tmp_path, pocket=pdb_text())]
    path = Path(processing.processed_data_dir) / "sequences.json"
    path.parent.mkdir()
    path.write_text(damage)
    assert describe(one, processing) == {"1abc": Chains((POCKET,), "pocket")}
    assert json.loads(path.read_text())["entries"]["1abc"][0]["sequences"] == [POCKET]


@pytest.mark.parametrize("change", [{"sequences": ["b"]}, {"sequences": [""]}, {"sequences": "DA"}, {"origin": None}])
def test_an_entry_of_the_wrong_form_is_read_again(tmp_path: Path, processing: ProcessingSettings, change: dict) -> None:
    one = [files(tmp_path, pocket=pdb_text())]
    describe(one, processing)
    path = Path(processing.processed_data_dir) / "sequences.json"
    content = json.loads(path.read_text())
    content["entries"]["1abc"][0] |= change
    path.write_text(json.dumps(content))
    assert describe(one, processing) == {"1abc": Chains((POCKET,), "pocket")}


def test_many_files_are_read_by_workers(
    tmp_path: Path, processing: ProcessingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptions, "FEW_FILES", 1)
    three = [files(tmp_path, f"{n}abc", pocket=pdb_text()) for n in range(3)]
    chains = describe(three, replace(processing, num_workers=1))
    assert chains == {one.code: Chains((POCKET,), "pocket") for one in three}
