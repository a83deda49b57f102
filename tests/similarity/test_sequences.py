"""Sequences from SEQRES records and from residues, and the file that keeps them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
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
    residue: str,
    chain: str,
    number: int,
    *,
    record: str = "ATOM",
    altloc: str = " ",
    insertion: str = " ",
    y: float = 2.0,
) -> str:
    """A CA; residues of one chain lie 3.8 Å apart."""
    place = f"{altloc}{residue:<4}{chain}{number:>4}{insertion}"
    return f"{record:<6}{1:>5}  CA {place}   {1.0 + 3.8 * (number % 1000):8.3f}{y:8.3f}   3.000  1.00 10.00\n"


def as_mmcif(text: str) -> str:
    names = ["group_PDB", "type_symbol", "label_atom_id", "label_alt_id", "auth_comp_id", "auth_asym_id", "auth_seq_id"]
    header = "".join(f"_atom_site.{name}\n" for name in [*names, "Cartn_x", "Cartn_y", "Cartn_z"])
    rows = [
        [row[:6], "C", row[12:16], row[16], row[17:21], row[21], row[22:26], row[30:38], row[38:46], row[46:54]]
        for row in text.splitlines()
    ]
    return f"data_x\nloop_\n{header}" + "".join(" ".join(w.strip() or "." for w in row) + "\n" for row in rows) + "#\n"


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


ONE, OTHER = ["SER", "LYS", "TRP", "GLY", "ALA"], ["VAL", "SER", "HIS", "GLU", "PHE", "TYR"]


def chains(letters: str, *, first: int = 1) -> list[list[str]]:
    return [
        [atom(name, letter, number, y=y) for number, name in enumerate(names, start=start)]
        for letter, names, y, start in zip(letters, (ONE, OTHER), (2.0, 20.0), (first, 1), strict=True)
    ]


@pytest.mark.parametrize("form", [str, as_mmcif])
@pytest.mark.parametrize("letter", ["A", " "])
@pytest.mark.parametrize("way", ["one after the other", "in turn"])
def test_two_chains_with_one_letter_or_none_have_two_sequences(
    tmp_path: Path, form: Callable[[str], str], letter: str, way: str
) -> None:
    one, other = chains(2 * letter)
    text = one + other if way == "one after the other" else [row for k in range(5) for row in (one[k], other[k])]
    text += other[5:] if way == "in turn" else []
    found = read_chains(files(tmp_path, protein=form("".join(text)))).sequences
    assert found == ("SKWGA", "VSHEFY")


def test_a_second_chain_that_is_longer_keeps_its_end(tmp_path: Path) -> None:
    """Its last residue has a number that the first chain lacks, and lies where the second one ends."""
    one, other = chains("AA")
    assert read_chains(files(tmp_path, protein="".join([*one, "TER\n", *other]))).sequences == ("SKWGA", "VSHEFY")


def test_of_conformers_the_first_counts_wherever_it_lies(tmp_path: Path) -> None:
    apart = atom("SER", "A", 1, altloc="A") + atom("THR", "A", 1, altloc="B", y=5.0) + atom("LYS", "A", 2)
    near = atom("SER", "A", 1) + atom("THR", "A", 1, y=2.5) + atom("LYS", "A", 2)
    for text in (apart, near):
        assert read_chains(files(tmp_path, protein=text)).sequences == ("SK",)


def test_sixty_copies_of_a_chain_are_one_sequence(tmp_path: Path) -> None:
    rows = [atom(name, " ", number, y=10.0 * copy) for copy in range(60) for number, name in enumerate(ONE)]
    assert read_chains(files(tmp_path, protein="".join(rows))).sequences == ("SKWGA",)


def test_lengths_and_chains_beyond_those_of_any_structure_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sequences are aligned in the main process, in a time that grows with the product of their lengths."""
    monkeypatch.setattr(descriptions, "MAX_LENGTH", 4)
    monkeypatch.setattr(descriptions, "MAX_CHAINS", 2)
    text = "SEQRES   1 A    6  ALA SER ALA SER ALA SER\nSEQRES   1 B    1  GLY\nSEQRES   1 C    2  TRP TRP\n"
    assert read_chains(files(tmp_path, protein=text + atom("SER", "A", 1))).sequences == ("ASAS", "WW")
    far = "".join(atom("SER", "A", number) for number in (1, 3, 9))
    assert read_chains(files(tmp_path, protein=far)).sequences == ("SXS",)


def test_models_that_lie_apart_are_read_as_the_graph_reads_them(tmp_path: Path) -> None:
    one, other = ("".join(rows) for rows in chains("AA"))
    text = f"MODEL        1\n{one}ENDMDL\nMODEL        2\n{other}ENDMDL\n"
    assert read_chains(files(tmp_path, protein=text)).sequences == ("SKWGA", "VSHEFY")
    ensemble = f"MODEL        1\n{one}ENDMDL\nMODEL        2\n{one.replace('TRP', 'HIS')}ENDMDL\n"
    assert read_chains(files(tmp_path, protein=ensemble)).sequences == ("SKWGA",)


def test_names_and_numbers_of_simulations(tmp_path: Path) -> None:
    names = ["NALA", "HISB", "LSN", "CYT", "ASPP", "CYS2", "HSD", "CGLY"]
    text = "".join(atom(name, "A", number) for number, name in enumerate(names, start=1))
    assert read_chains(files(tmp_path, protein=text)).sequences == ("AHKCDCHG",)
    hybrid_36 = atom("SER", "A", 9999) + atom("TRP", "A", 10_000).replace("A10000", "AA000")
    assert read_chains(files(tmp_path, protein=hybrid_36)).sequences == ("SW",)


def test_calcium_and_nucleic_acids_have_no_sequence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    calcium = atom(" CA", "A", 2, record="HETATM").replace("  CA  ", " CA   ")
    assert read_chains(files(tmp_path, protein=calcium + atom("DA", "A", 1).replace(" CA ", " P  "))).sequences == ()
    assert caplog.text == ""


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


def end_the_process(asked: ComplexFiles) -> Chains:
    os.kill(os.getpid(), signal.SIGKILL)
    return Chains((), "")


def test_one_file_alone_is_read_under_supervision(
    tmp_path: Path, processing: ProcessingSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What a stranger's file does to the process that reads it, it does to a worker."""
    one, supervised = files(tmp_path, pocket=pdb_text()), replace(processing, num_workers=2)
    assert describe([one], supervised) == {"1abc": Chains((POCKET,), "pocket")}
    one.pocket.write_text(pdb_text() + "REMARK\n")
    monkeypatch.setattr(descriptions, "read_chains", end_the_process)
    assert describe([one], supervised) == {"1abc": Chains((), "none")}
    assert "1abc: its sequence is not known: worker died with signal SIGKILL" in caplog.text


@pytest.mark.parametrize(("count", "most", "expected"), [(0, 4, 0), (1, 4, 1), (500, 4, 1), (501, 4, 2), (9999, 4, 4)])
def test_few_files_start_one_worker(
    tmp_path: Path,
    processing: ProcessingSettings,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    most: int,
    expected: int,
) -> None:
    asked: list[int] = []

    def run(function: object, tasks: Sequence, *, num_workers: int, **limits: object) -> Iterator:
        asked.append(num_workers)
        return iter(())

    monkeypatch.setattr(descriptions, "run_supervised", run)
    path = tmp_path / "a.pdb"
    with contextlib.suppress(KeyError):  # nothing was read
        describe([ComplexFiles(str(n), path, None, ()) for n in range(count)], replace(processing, num_workers=most))
    assert asked == [expected]


def test_a_complex_without_a_structure_starts_no_worker(
    processing: ProcessingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptions, "read_chains", end_the_process)
    empty = ComplexFiles("1abc", None, None, ())
    assert describe([empty], replace(processing, num_workers=2)) == {"1abc": Chains((), "none")}
