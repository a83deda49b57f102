"""Index lines and data sets small enough to check by eye."""

from __future__ import annotations

import logging
import os
import time
import tracemalloc
from pathlib import Path
from random import Random

import pytest

from src.pdbbind.affinity import MAX_LINE, IndexEntry, PDBbindError
from src.pdbbind.index import find_index, read_dataset, read_index, select_entries
from tests.complexes import small_settings

REAL_DATA = os.environ.get("AIDD_REAL_DATA")
GOOD = "1abc  2.00  2001  Kd=1nM  // 1abc.pdf (LIG)\n"


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


def read_line(tmp_path: Path, line: str | bytes) -> IndexEntry:
    (entry,) = read_index(write(tmp_path / "INDEX_test.lst", line)).entries
    return entry


def reason_of(tmp_path: Path, line: str | bytes) -> str:
    """The reason for which `line` is refused, after checking that the good line before it was kept."""
    line = line.encode("utf-8") if isinstance(line, str) else line
    index = read_index(write(tmp_path / "INDEX_test.lst", GOOD.encode() + line))
    (bad,) = index.bad_lines
    assert len(index.entries) == 1
    assert bad.line_number == 2
    assert bad.text.isprintable()
    assert len(bad.text) <= 120
    return bad.reason


def test_micro_as_one_latin_byte(tmp_path):
    assert read_line(tmp_path, b"1abc 2.0 2001 Kd=10\xb5M // (LIG) Universit\xe9").pk == pytest.approx(5.0)


@pytest.mark.fault("G3", "G4")
@pytest.mark.parametrize(
    ("line", "kind", "pk", "resolution", "year"),
    [
        ("2tpi  2.10  1982  Kd=49uM       // 2tpi.pdf (2-mer)", "Kd", 4.3098, 2.10, 1982),
        ("3zzf  2.20  2012   0.40  Ki=400mM      // 3zzf.pdf (NLG)", "Ki", 0.3979, 2.20, 2012),
        ("4llx   1.75  2014    2.89        1", "pK", 2.89, 1.75, 2014),
        ("4llx   1.75  2014    2.89  Ki=1.28mM    1", "Ki", 2.8928, 1.75, 2014),
        ("1abc  2.00  2001  7.25  // 1abc.pdf (LIG)", "pK", 7.25, 2.0, 2001),
        ("6rsa   NMR  1986  Ki=40uM   // 6rsa.pdf (UVC)", "Ki", 4.3979, None, 1986),
        ("1abc  0.00  2001  Kd=1nM // x", "Kd", 9.0, None, 2001),
        ("1abc  9.9   2001  Kd=1nM // x", "Kd", 9.0, 9.9, 2001),
        ("1abc  2001  Kd=1nM // x", "Kd", 9.0, None, 2001),
        ("1abc  --  NA  Kd=1nM // x", "Kd", 9.0, None, None),
        ("1abc  2.0  2001  NA  Kd=1nM // x", "Kd", 9.0, 2.0, 2001),
    ],
)
def test_line_forms(tmp_path, line, kind, pk, resolution, year):
    entry = read_line(tmp_path, line)
    assert (entry.kind, entry.resolution, entry.year) == (kind, resolution, year)
    assert entry.pk == pytest.approx(pk, abs=1e-4)
    assert entry.nmr == ("NMR" in line)
    assert entry.remark in ("", "x")


@pytest.mark.fault("G5")
@pytest.mark.parametrize(
    ("tail", "ligand", "remark", "flags"),
    [
        (
            "// 5tln.pdf (BAN) incomplete ligand structure",
            "BAN",
            "incomplete ligand structure",
            {"incomplete"},
        ),
        ("// 6cha.pdf (PBA) covalent complex", "PBA", "covalent complex", {"covalent"}),
        ("// 6cha.pdf (PBA) non-covalent complex", "PBA", "non-covalent complex", set()),
        ("// 2tpi.pdf (2-mer)", "2-mer", "", set()),
        ("// 3rv8.pdf (RVC/VCE) (Z/E)-form", "RVC/VCE", "(Z/E)-form", {"multi"}),
        ("// 3t82.pdf (MG5&SG5)", "MG5&SG5", "", {"multi"}),
        ("// 2nmw.pdf (ROC) Ki=4+/-1nM, redundant to 2nnp", "ROC", "Ki=4+/-1nM, redundant to 2nnp", set()),
        ("1abc.pdf (LIG) isomer", "LIG", "isomer", set()),
        ("// 1abc.pdf (LIG) // isomer", "LIG", "isomer", set()),
        ("// 1abc.pdf (A(2)B)", "A(2)B", "", set()),
        ("", "", "", set()),
    ],
)
def test_reference_and_flags(tmp_path, tail, ligand, remark, flags):
    entry = read_line(tmp_path, f"1abc  2.00  2001  Kd=1nM  {tail}")
    found = {
        "covalent": entry.covalent,
        "incomplete": entry.incomplete_ligand,
        "multi": entry.multi_ligand,
    }
    assert (entry.ligand_name, entry.remark) == (ligand, remark)
    assert {name for name, is_set in found.items() if is_set} == flags


@pytest.mark.fault("G6")
def test_text_forms(tmp_path):
    text = "# comment\r\n\r\n1ABC\t2.0\t2001\tKd=1nM\t// 1abc.pdf (LIG)   \r\n  \n2abc 2.0 2001 Ki=1nM // (É)"
    index = read_index(write(tmp_path / "index", b"\xef\xbb\xbf" + text.encode()))
    assert [entry.code for entry in index.entries] == ["1abc", "2abc"]
    assert index.bad_lines == ()


@pytest.mark.fault("G7", "G8")
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2abc", "no label"),
        ("2abc 2.0 2001 // 2abc.pdf", "no label"),
        ("2abc 2.0 2001 nan", "no label"),
        ("2abc 2.0 2001 inf", "plain number"),
        ("2abc 2.3O 2001 Kd=1nM", "resolution '2.3O'"),
        ("2abc 2.3 20O1 Kd=1nM", "year '20O1'"),
        ("2abc 2.3 2001 5.0 x Kd=1nM", "'x' before the affinity"),
        ("2abc 2.0 2001 Kd=1,2nM", "'Kd=1,2nM' not understood"),
        ("2abc 2.0 2001 Kd=1e-9M", "not understood"),
        ("2abc 2.0 2001 Kd=12", "unit ''"),
        ("2abc 2.0 2001 Kd=12MM", "unit 'MM'"),
        ("2abc 2.0 2001 Ka=12nM", "Kd Ki IC50"),
        ("2abc 2.0 2001 Kd=1nM Ki=2nM // x", "two affinities"),
        ("2abc 2.0 2001 Kd=0nM", "above 0"),
        ("2abc 2.0 2001 Kd=20M", "outside 0 to 15"),
        ("2abc 2.0 2001 Kd=0.1fM", "outside 0 to 15"),
        ("2abc 2.0 2001 -3.2 // x", "outside 0 to 15"),
        ("2abc 2.0 2001 16.1 // x", "outside 0 to 15"),
        ("2abc 2.0 2001 Kd=1nM \0", "control characters"),
        ("2abc 2.0 2001 Kd=1nM // " + "é" * MAX_LINE, "longer than"),
        ("2abc 2.0 2001 Kd=1nM // x" + "é" * MAX_LINE, "longer than"),
        ("1ABC 2.0 2001 Kd=2nM", "another label (pK 9.00)"),
        ("1abc 2.0 2001 Kd<1nM", "another label"),
    ],
)
def test_bad_line_is_named_and_the_rest_goes_on(tmp_path, line, reason):
    assert reason in reason_of(tmp_path, line)


@pytest.mark.fault("G10", "K7")
@pytest.mark.parametrize("code", ["../../etc", ".hid", "CON"])
def test_unsafe_code_is_refused(tmp_path, code):
    assert "code" in reason_of(tmp_path, f"{code} 2.0 2001 Kd=1nM")


@pytest.mark.fault("G10")
def test_extended_pdb_code(tmp_path):
    assert read_line(tmp_path, "PDB_00001ABC 2.0 2001 Kd=1nM").code == "pdb_00001abc"


@pytest.mark.fault("F12")
def test_repeated_code_with_the_same_label_is_a_row_of_its_own(tmp_path):
    index = read_index(write(tmp_path / "index", GOOD + "1ABC 1.50 2003 9.01 // same within 0.02\n"))
    assert [(entry.code, entry.resolution) for entry in index.entries] == [("1abc", 2.0)]
    assert [bad.reason for bad in index.bad_lines] == ["1abc came before with the same label"]


@pytest.mark.fault("G3")
@pytest.mark.parametrize(("stated", "warned"), [("9.00", False), ("9.02", False), ("9.05", True), ("6.00", True)])
def test_disagreeing_columns_are_reported(tmp_path, caplog, stated, warned):
    with caplog.at_level(logging.WARNING):
        entry = read_line(tmp_path, f"1abc 2.0 2001 {stated} Kd=1nM")
    assert entry.pk == pytest.approx(9.0)
    assert ("1abc by" in caplog.text) == warned


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("", "no usable line"),
        ("# only\n", "no usable line"),
        (b"\x89PNG\0\0\n", "line 1"),
        ("11gs 2000 P09211 glutathione transferase\n", "no usable line"),
    ],
)
def test_unusable_file(tmp_path, content, message):
    path = tmp_path / "INDEX_x"
    if content is not None:
        write(path, content)
    with pytest.raises(PDBbindError, match=message) as caught:
        read_index(path)
    assert str(path) in str(caught.value)


def test_folder_as_index(tmp_path):
    with pytest.raises(PDBbindError, match="it is a folder"):
        read_index(tmp_path)


@pytest.mark.fault("G11")
@pytest.mark.parametrize(
    ("num_lines", "num_bytes"), [(20_000, 5_000_000), pytest.param(200_000, 50_000_000, marks=pytest.mark.slow)]
)
def test_large_files_take_bounded_time_and_memory(tmp_path, num_lines, num_bytes):
    lines = "".join(f"c{i:06d} 2.30 1982 5.00 Ki=10uM // 4tln.pdf (LNO) x\n" for i in range(num_lines))
    start = time.process_time()
    assert len(read_index(write(tmp_path / "many", lines)).entries) == num_lines
    assert time.process_time() - start < num_lines / 4_000
    path = write(tmp_path / "long", b"x" * num_bytes + b"\n" + GOOD.encode())
    tracemalloc.start()
    index = read_index(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
    assert [(bad.line_number, len(bad.text)) for bad in index.bad_lines] == [(1, 120)]
    assert [entry.code for entry in index.entries] == ["1abc"]


@pytest.mark.parametrize(
    ("name", "content"), [("t.csv", "code,pKd\n1abc,9\n"), ("t.lst", "1abc 2.0 2001 9.0 Kd=1nM\n")]
)
def test_read_index_takes_a_table(tmp_path, name, content):
    (entry,) = read_index(write(tmp_path / name, content)).entries
    assert (entry.code, entry.kind, entry.pk) == ("1abc", "Kd", pytest.approx(9.0))


def test_find_index_prefers_general_and_new(tmp_path):
    with pytest.raises(PDBbindError, match=r"no index below.*INDEX_general_PL.*index_file"):
        find_index(tmp_path)
    write(tmp_path / "notes.csv", "a,b\n")
    for name in (
        "labels.csv",
        "power_scoring/CoreSet.dat",
        "index/INDEX_demo.lst",
        "refined-set/index/INDEX_refined_data.2020",
        "index/INDEX_general_PL_data.2016",
        "v2020-other-PL/index/INDEX_general_PL_data.2020",
    ):
        path = write(tmp_path / name, "code,pK\n1abc,7\n")
        write(tmp_path / "index" / "INDEX_general_PL_name.2020", "")
        write(tmp_path / "index" / "INDEX_general_PP_data.2020", "")
        assert find_index(tmp_path) == path


def test_read_dataset_joins_labels_and_files(tmp_path):
    write(tmp_path / "index" / "INDEX_general_PL_data.2020", GOOD + "2abc 2.0 2001 6.0 Kd=1uM // x\n")
    for part in ("protein.pdb", "ligand.sdf"):
        write(tmp_path / "refined-set" / "1abc" / f"1abc_{part}", "")
    index, files = read_dataset(tmp_path, None)
    assert ([entry.code for entry in index.entries], list(files)) == (["1abc", "2abc"], ["1abc"])
    table = write(tmp_path / "own.csv", "code,pK,ligand_path\n1abc,7,\nmine,8,mine.sdf\n")
    index, files = read_dataset(tmp_path, table)
    assert files["1abc"].protein.name == "1abc_protein.pdb"
    assert files["mine"].ligands == (tmp_path / "mine.sdf",)


KEEP_ALL = {
    "affinity_kinds": ("Kd", "Ki", "IC50"),
    "censored_labels": "bound",
    "max_resolution": None,
    **dict.fromkeys(["keep_nmr", "keep_covalent", "keep_incomplete_ligands", "keep_multi_ligands"], True),
}
MIXED = """\
1aaa 2.50 2001 Kd=1nM // (LIG)
2aaa 2.51 2001 Ki=1nM // (LIG)
3aaa 0.00 2001 IC50=1nM // (LIG)
4aaa NMR  2001 Kd=1nM // (LIG) covalent complex
5aaa 1.00 2001 Kd>1nM // (2-mer) incomplete ligand structure
6aaa 1.00 2001 7.0 // (A/B)
7aaa 1.00 2001 Kd~1nM // (LIG)
"""


@pytest.mark.fault("G1", "G4", "G5")
@pytest.mark.parametrize(
    ("change", "dropped"),
    [
        ({}, {}),
        ({"affinity_kinds": ("Kd",)}, {"2aaa": "kind Ki", "3aaa": "kind IC50"}),
        ({"censored_labels": "drop"}, {"5aaa": "censored label Kd>"}),
        ({"max_resolution": 2.5}, {"2aaa": "resolution 2.51, limit 2.5 Å"}),
        ({"keep_nmr": False}, {"4aaa": "nmr"}),
        ({"keep_nmr": False, "keep_covalent": False}, {"4aaa": "nmr; covalent"}),
        ({"keep_incomplete_ligands": False}, {"5aaa": "incomplete ligand"}),
        ({"keep_multi_ligands": False}, {"6aaa": "multi ligand"}),
    ],
)
def test_select_entries(tmp_path, change, dropped):
    entries = read_index(write(tmp_path / "index", MIXED)).entries
    kept, left_out = select_entries(entries, small_settings(tmp_path, **(KEEP_ALL | change)).data)
    assert {row.code: row.reason for row in left_out} == dropped
    assert {row.stage for row in left_out} <= {"settings"}
    assert [entry.code for entry in kept] == [e.code for e in entries if e.code not in dropped]


def test_damaged_bytes_raise_nothing_else(tmp_path):
    random = Random(0)
    num_refused = 0
    for _ in range(100):
        content = bytearray(MIXED.encode())
        for _ in range(random.randrange(1, 30)):
            content[random.randrange(len(content))] = random.randrange(256)
        try:
            assert read_index(write(tmp_path / "INDEX_x", bytes(content))).entries
        except PDBbindError:
            num_refused += 1
    assert num_refused < 100


@pytest.mark.skipif(REAL_DATA is None, reason="AIDD_REAL_DATA is not set")
def test_real_pdbbind_and_table():
    root = Path(REAL_DATA)
    index, files = read_dataset(root / "pdbbind", None)
    assert (len(index.entries), index.bad_lines, len(files)) == (2857, (), 2857)
    assert all(found.pocket and found.ligands for found in files.values())
    assert [entry.code for entry in index.entries if entry.nmr] == ["2l1r"]
    index, files = read_dataset(root / "fep", None)
    assert (len(index.entries), index.bad_lines, len(files)) == (369, (), 369)
    assert all(found.protein.is_file() and found.ligands[0].is_file() for found in files.values())


def test_a_table_that_is_not_understood_is_named_with_its_reason(tmp_path):
    (tmp_path / "series.csv").write_text("code,protein,ligand,value,unit\n1abc,p.pdb,l.sdf,7,nM\n")
    with pytest.raises(PDBbindError, match=r"(?s)no table that is understood.*series.csv: column 'unit': give pK"):
        find_index(tmp_path)
