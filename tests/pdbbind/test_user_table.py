"""Tables of a few rows."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from src.pdbbind.affinity import PDBbindError
from src.pdbbind.user_table import header_fault, is_table, read_table


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


@pytest.mark.fault("G9")
def test_table(tmp_path):
    root = tmp_path / "data"
    for path in ("t/p.pdb", "t/a.sdf", "data/b.sdf"):
        write(tmp_path / path, "")
    table = write(
        tmp_path / "t" / "labels.csv",
        "Code,protein_path,ligand_path,pK,affinity_text,target,Year,resolution\n"
        "Lig-17,p.pdb,a.sdf,5.167,IC50=6.8uM,cdk2,2012,1.9\n"
        'lig 18,p.pdb,a.sdf,5.2,,"x, y",,\n'
        "lig-19,p.pdb,b.sdf,6.0,Ki>1 uM,,,\n"
        "lig-20,,/abs/c.sdf,6.1,dG=-9.1kilojoules / mol,,,\n"
        "lig-21,,,,pKi>7.5\n"
        "lig-22,p.pdb,a.sdf,6.0,dG<-30kJ\n"
        'lig-23,p.pdb,"a.sdf,6.0,\n'
        "lig-24,p.pdb,a.sdf,,,,,\n"
        "lig-25,p.pdb,a.sdf,7,,,2001,1.0,9\n",
    )
    index, files = read_table(table, root)
    assert [(e.code, e.kind, e.relation, round(e.pk, 3), e.year, e.resolution) for e in index.entries] == [
        ("Lig-17", "IC50", "=", 5.167, 2012, 1.9),
        ("lig-19", "Ki", ">", 6.0, None, None),
        ("lig-20", "pK", "=", 6.1, None, None),
        ("lig-21", "Ki", "<", 7.5, None, None),
    ]
    assert [bad.line_number for bad in index.bad_lines] == [3, 7, 8, 9, 10]
    assert files["Lig-17"].protein == tmp_path / "t" / "p.pdb"
    assert files["lig-19"].ligands == (root / "b.sdf",)
    assert (files["lig-20"].protein, files["lig-20"].ligands) == (None, (Path("/abs/c.sdf"),))
    assert "lig-21" not in files


def test_a_row_says_how_much_it_counts_and_where_it_is_from(tmp_path):
    rows = "1aaa,8,0.3,posed\n1bbb,7,,\n1ccc,7,0,x\n1ddd,7,nan,x\n1eee,7,1.5,x\n1fff,7,much,x\n"
    index, _ = read_table(write(tmp_path / "t.csv", f"code,pK,Weight,source\n{rows}"))
    assert [(one.code, one.weight, one.source) for one in index.entries] == [("1aaa", 0.3, "posed"), ("1bbb", 1.0, "")]
    assert [bad.line_number for bad in index.bad_lines] == [4, 5, 6, 7]
    assert all("must be a number above 0 and at most 1" in bad.reason for bad in index.bad_lines)


@pytest.mark.fault("G8", "G9", "G10")
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("..,8", "code '..'"),
        ("nul.txt,8", "code 'nul.txt'"),
        ("2abc,80", "outside 0 to 15"),
        ("2abc,8,x", "3 cells under 2 column names"),
        ("2abc,", "no label"),
        ("1abc,8", "another label"),
    ],
)
def test_bad_row_is_named_and_the_rest_goes_on(tmp_path, row, reason):
    index, _ = read_table(write(tmp_path / "t.csv", f"code,pK\n1abc,9\n{row}\n3abc,7\n"))
    assert [entry.code for entry in index.entries] == ["1abc", "3abc"]
    (bad,) = index.bad_lines
    assert bad.line_number == 3
    assert reason in bad.reason


@pytest.mark.fault("G9")
@pytest.mark.parametrize("content", ["code,pK\n", "code,pK\n1abc,\n", "code,pK,affinity_text\n1abc,,\n"])
def test_a_table_without_labels_is_told_about_its_own_columns(tmp_path, content):
    with pytest.raises(PDBbindError, match=r"no usable line.*(affinity_text)") as caught:
        read_table(write(tmp_path / "t.csv", content))
    assert "logKd" not in str(caught.value)


@pytest.mark.fault("G9")
@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("PDB_ID,pKd", "Kd"),
        ("pdb;pki", "Ki"),
        ("id\tpIC50", "IC50"),
        ("Pdb Code,-logKd/Ki", "pK"),
        ("code,label", "pK"),
    ],
)
def test_other_column_names(tmp_path, header, kind):
    delimiter = next(char for char in ",;\t" if char in header)
    index, _ = read_table(write(tmp_path / "t.csv", f"{header}\n1abc{delimiter}7.5\n"))
    (entry,) = index.entries
    assert (entry.code, entry.kind, round(entry.pk, 9)) == ("1abc", kind, 7.5)


@pytest.mark.fault("G9")
@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("1abc,7.5", "lacks code or pK; columns understood are code: code, pdb"),
        ("code,protein_path", "lacks code or pK"),
        ("code,pK,pdb", "both give code"),
        ("code,affinity,unit", "column 'unit': give pK"),
        ("code,value", "column 'value'"),
        ("code,pK,relation", "column 'relation'"),
        ('code,"pK', "t.csv: header"),
    ],
)
def test_unusable_header(tmp_path, header, message):
    with pytest.raises(PDBbindError, match=message):
        read_table(write(tmp_path / "t.csv", f"{header}\n1abc,7.5,x\n"))


@pytest.mark.parametrize(
    ("name", "header", "expected"),
    [
        ("t.csv", "code,pK", True),
        ("t.TSV", "code\tpK", True),
        ("t.txt", "code,pK", False),
        ("t.csv", "a,b", False),
        ("t.csv", "", False),
    ],
)
def test_recognised_by_name_and_header(tmp_path, name, header, expected):
    path = write(tmp_path / name, f"{header}\n")
    assert (is_table(path) and not header_fault(path)) == expected
    assert is_table(path) == (not name.endswith(".txt"))


def test_damaged_bytes_raise_nothing_else(tmp_path):
    random = Random(0)
    num_refused = 0
    for _ in range(100):
        content = bytearray(b"code,pK,ligand_path\n" + b"1abc,7,a.sdf\n" * 9)
        for _ in range(random.randrange(1, 30)):
            content[random.randrange(len(content))] = random.randrange(256)
        try:
            assert read_table(write(tmp_path / "x.csv", bytes(content)))[0].entries
        except PDBbindError:
            num_refused += 1
    assert num_refused < 100
