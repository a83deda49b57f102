"""Affinities, columns and lines of text short enough to check by eye."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from src.pdbbind.affinity import (
    MAX_LINE,
    Index,
    IndexEntry,
    PDBbindError,
    checked_code,
    choose_label,
    collect,
    numbered_lines,
    parse_affinity,
    parse_pk,
    parse_resolution,
    parse_year,
    starts_with_affinity,
)


def read_pairs(path: Path, content: bytes) -> Index:
    """Read lines `code affinity`."""
    path.write_bytes(content)

    def parse(text: str) -> tuple[IndexEntry, None]:
        code, affinity = text.split()
        return IndexEntry(code, None, None, *parse_affinity(affinity), ligand_name="", remark=""), None

    return collect(path, numbered_lines(path), parse)


@pytest.mark.fault("G1")
@pytest.mark.parametrize("kind", ["Kd", "Ki", "IC50"])
@pytest.mark.parametrize(
    ("sign", "relation", "bound"),
    [
        ("=", "=", 0),
        ("~", "~", 0),
        ("<", "<", 1),
        ("<=", "<=", 1),
        (">", ">", -1),
        (">=", ">=", -1),
        ("≤", "<=", 1),
        ("≥", ">=", -1),
    ],
)
def test_kind_and_relation(kind, sign, relation, bound):
    label = parse_affinity(f"{kind}{sign}10uM")
    assert label == (kind, relation, pytest.approx(1e-5))
    entry = IndexEntry("4cts", 2.9, 1984, *label, ligand_name="OAA", remark="")
    assert entry.bound == bound
    assert entry.pk == pytest.approx(5.0, abs=1e-12)


@pytest.mark.fault("G2")
@pytest.mark.parametrize(
    ("amount", "pk"),
    [
        ("1M", 0.0),
        ("400mM", 2 - math.log10(40)),
        ("10uM", 5.0),
        ("10µM", 5.0),
        ("10μM", 5.0),
        ("2.5nM", 9 - math.log10(2.5)),
        (".1pM", 13.0),
        ("1fM", 15.0),
    ],
)
def test_units(amount, pk):
    assert -math.log10(parse_affinity(f"Kd={amount}")[2]) == pytest.approx(pk, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "kind", "relation", "pk"),
    [
        ("pKd=7.5", "Kd", "=", 7.5),
        ("pKi>7.2", "Ki", "<", 7.2),
        ("pIC50<=6", "IC50", ">=", 6.0),
        ("pKd~8.", "Kd", "~", 8.0),
        (" ki <= 1.5 nM ", "Ki", "<=", 9 - math.log10(1.5)),
        ("KD=1nM", "Kd", "=", 9.0),
    ],
)
def test_logarithms_spaces_and_case(text, kind, relation, pk):
    assert parse_affinity(text) == (kind, relation, pytest.approx(10**-pk))


@pytest.mark.fault("G2", "G7")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not understood"),
        ("Ka=12nM", "Kd Ki IC50"),
        ("Kd=1,2nM", "'Kd=1,2nM' not understood"),
        ("Kd=1e-9M", "not understood"),
        ("Kd=-1nM", "not understood"),
        ("Kd==1nM", "not understood"),
        ("Kd=1nM x", "not understood"),
        ("Kd=12", "unit ''"),
        ("Kd=12MM", "unit 'MM'"),
        ("Kd=12nm", "unit 'nm'"),
        ("pKd=7nM", "unit 'nM'"),
        ("Kd=0nM", "above 0"),
        ("Kd=20M", "outside 0 to 15"),
        ("Kd=0.1fM", "outside 0 to 15"),
        ("pKd=16", "outside 0 to 15"),
    ],
)
def test_bad_affinity_is_refused(text, reason):
    with pytest.raises(PDBbindError, match=reason):
        parse_affinity(text)


@pytest.mark.parametrize(("text", "starts"), [("Kd=1MM", True), ("Kd", False), ("x Kd=1nM", False)])
def test_start_of_an_affinity(text, starts):
    assert starts_with_affinity(text) == starts


@pytest.mark.parametrize(
    ("text", "pk"), [("7.25", 7.25), (" +7 ", 7.0), ("-0", 0.0), ("15", 15.0), ("NA", None), ("--", None)]
)
def test_stated_pk(text, pk):
    assert parse_pk(text) == pk


@pytest.mark.fault("G8")
@pytest.mark.parametrize("text", ["inf", "7,2", "1e1", "-3.2", "15.1", "seven"])
def test_bad_pk_is_refused(text):
    with pytest.raises(PDBbindError, match=r"plain number|outside 0 to 15"):
        parse_pk(text)


def test_choice_between_two_affinities():
    parsed = ("Ki", "<", 1e-9)
    assert choose_label(parsed, None, trust_stated=True) == (parsed, None)
    assert choose_label(None, 6.0, trust_stated=False) == (("pK", "=", 1e-6), None)
    assert choose_label(parsed, 8.0, trust_stated=False) == (parsed, pytest.approx(1.0))
    assert choose_label(parsed, 8.0, trust_stated=True) == (("Ki", "<", 1e-8), pytest.approx(1.0))
    with pytest.raises(PDBbindError, match="no label"):
        choose_label(None, None, trust_stated=True)


@pytest.mark.fault("G4")
@pytest.mark.parametrize(
    ("text", "found"),
    [("2.10", (2.1, False)), ("0.00", (None, False)), ("NMR", (None, True)), ("--", (None, False))],
)
def test_resolution(text, found):
    assert parse_resolution(text) == found


@pytest.mark.parametrize(("text", "year"), [("1982", 1982), ("2012.0", 2012), ("NA", None)])
def test_year(text, year):
    assert parse_year(text) == year


@pytest.mark.parametrize(
    ("parse", "text"),
    [(parse_resolution, "2.3O"), (parse_resolution, "-1"), (parse_year, "1882"), (parse_year, "2012.5")],
)
def test_bad_column_is_refused(parse, text):
    with pytest.raises(PDBbindError, match=text):
        parse(text)


@pytest.mark.fault("G10")
@pytest.mark.parametrize("code", ["1abc", "pdb_00001abc", "Lig-17", "a.b", "a" * 100])
def test_safe_code(code):
    assert checked_code(code) == code


@pytest.mark.fault("G10", "K7")
@pytest.mark.parametrize(
    "code",
    ["", "../../etc", "/etc/passwd", "..", ".hid", "a" * 101, "CON", "nul.txt", "1a\u200bc", "a\\b", "1a*c"],
)
def test_unsafe_code_is_refused(code):
    with pytest.raises(PDBbindError, match="code"):
        checked_code(code)


@pytest.mark.fault("G6")
def test_bytes_become_numbered_text(tmp_path):
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfKd=1\xc2\xb5M\r\n\nKd=1\xb5M")
    assert list(numbered_lines(tmp_path / "x")) == [(1, "Kd=1\u00b5M"), (2, ""), (3, "Kd=1\u00b5M")]


@pytest.mark.fault("G11")
def test_long_line_is_cut_and_refused(tmp_path):
    content = b"x" * 5_000_000 + b"\n1abc Kd=1nM\n2abc Kd=1nM" + b" " * (MAX_LINE - 11)
    index = read_pairs(tmp_path / "x", content)
    assert [(bad.line_number, len(bad.text), bad.reason) for bad in index.bad_lines] == [
        (1, 120, f"longer than {MAX_LINE} characters")
    ]
    assert [entry.code for entry in index.entries] == ["1abc", "2abc"]
    assert max(len(text) for _, text in numbered_lines(tmp_path / "x")) == MAX_LINE + 1


def test_first_of_equal_codes_is_kept(tmp_path):
    content = b"# two of three agree\n1abc Kd=1nM\n1ABC Kd=0.98nM\n1abc Kd=2nM\n"
    index = read_pairs(tmp_path / "x", content)
    assert [(entry.code, entry.molar) for entry in index.entries] == [("1abc", pytest.approx(1e-9))]
    assert [(bad.line_number, bad.reason[:36]) for bad in index.bad_lines] == [
        (3, "1ABC came before with the same label"),
        (4, "1abc came before with another label "),
    ]


@pytest.mark.fault("G7")
def test_text_of_a_bad_line_is_printable(tmp_path):
    index = read_pairs(tmp_path / "x", b"1abc Kd=1nM\n2abc \0\x1b[31m\n")
    assert [(bad.text, bad.reason) for bad in index.bad_lines] == [
        ("2abc ??[31m", "control characters: not a line of text")
    ]


def test_a_text_in_the_column_of_numbers_is_told_where_it_belongs() -> None:
    with pytest.raises(
        PDBbindError, match=r"pK 'Kd=49uM' is not a plain number; such a text stands in .* affinity_text"
    ):
        parse_pk("Kd=49uM")
    with pytest.raises(PDBbindError, match=r"is not a plain number$"):
        parse_pk("seven")
