"""Text of a binding affinity -> kind, relation and mol/L; lines of a label file -> entries and bad lines."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from src.system.errors import UserError

log = logging.getLogger(__name__)

KINDS = ("Kd", "Ki", "IC50")
UNSTATED_KIND = "pK"  # the source gives -log10(affinity) and does not say of what
MOLAR_UNITS = {  # mol/L; both code points of µ (U+00B5 and U+03BC) occur in published lists
    **{"M": 1.0, "mM": 1e-3, "uM": 1e-6, "\u00b5M": 1e-6, "\u03bcM": 1e-6},
    **{"nM": 1e-9, "pM": 1e-12, "fM": 1e-15},
}
PK_RANGE = (0.0, 15.0)  # 1 M to 1 fM; a label outside is a slip of the pen or of the unit
PK_TOLERANCE = 0.02  # pK; the -logKd/Ki column is rounded to 0.01
MAX_LINE = 10_000  # bytes
MAX_CODE = 100  # characters

Label = tuple[str, str, float]  # kind, relation, mol/L
RELATIONS = {"=": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "~": "~", "≤": "<=", "≥": ">="}
LINE_FORM = "expected: code resolution year [-logKd/Ki] Kd=49uM // reference (ligand) remark"
AFFINITY_FORM = f"expected Kd=49uM: {' '.join(KINDS)}, = < > <= >= ~, a plain number, {' '.join(MOLAR_UNITS)}"

_MIRRORED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}  # pKd > x says Kd < 10^-x
_MISSING = {"", "-", "--", "---", "----", "na", "n/a", "nan", "none", "null", "?", "."}

_NUMBER = re.compile(r"\d{1,30}(?:\.\d{0,30})?|\.\d{1,30}", re.ASCII)
_SIGNED_NUMBER = re.compile(rf"[+-]?(?:{_NUMBER.pattern})", re.ASCII)
_YEAR = re.compile(r"((?:19|20)\d\d)(?:\.0)?", re.ASCII)
_SAFE_CODE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", re.ASCII)
_DEVICE_NAME = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.ASCII | re.IGNORECASE)  # Windows
_AFFINITY = re.compile(
    rf"(p?)(Kd|Ki|IC50)\s*(<=|>=|[=<>~≤≥])\s*({_NUMBER.pattern})\s*([A-Za-z\u00b5\u03bc]*)", re.ASCII | re.IGNORECASE
)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class PDBbindError(UserError):
    """An index, table or data folder that cannot be used; says what was found and what would be right."""


@dataclass(frozen=True)
class IndexEntry:
    """One labelled complex."""

    code: str  # lower case in an index; as written in a table
    resolution: float | None  # Å; None for NMR or unknown
    year: int | None
    kind: str  # 'Kd', 'Ki', 'IC50', or 'pK' when the source does not say
    relation: str  # relation of the concentration: '=', '<', '>', '<=', '>=', '~'
    molar: float  # mol/L
    ligand_name: str
    remark: str
    nmr: bool = False
    covalent: bool = False
    incomplete_ligand: bool = False
    multi_ligand: bool = False  # '(A/B)' or '(A&B)': more than one ligand behind one label
    weight: float = 1.0  # how much the complex counts in what is learned
    source: str = ""  # where a row of a table says that it comes from

    @property
    def pk(self) -> float:
        """-log10 of the concentration in mol/L."""
        return -math.log10(self.molar)

    @property
    def bound(self) -> int:
        """0: pK is measured ('=' and '~'); +1: pK is at least `pk` (Kd < x); -1: at most `pk` (Kd > x)."""
        return {"<": 1, "<=": 1, ">": -1, ">=": -1}.get(self.relation, 0)


@dataclass(frozen=True)
class BadLine:
    line_number: int  # counted from 1
    text: str  # clipped, without control characters
    reason: str


@dataclass(frozen=True)
class Index:
    entries: tuple[IndexEntry, ...]
    bad_lines: tuple[BadLine, ...]


def parse_affinity(text: str) -> Label:
    """Read Kd=49uM, IC50<=1.5 nM or pKi>7.2; the relation returned is that of the concentration.

    Raises:
        PDBbindError: kind, relation, number or unit is not known, or the pK is outside PK_RANGE.
    """
    match = _AFFINITY.fullmatch(text.strip())
    if match is None:
        raise PDBbindError(f"affinity {quoted(text)} not understood; {AFFINITY_FORM}")
    negative_log, kind, relation, number, unit = match.groups()
    kind = next(name for name in KINDS if name.lower() == kind.lower())
    relation = RELATIONS[relation]
    if negative_log and not unit:
        return kind, _MIRRORED.get(relation, relation), 10.0 ** -_checked_pk(float(number), text)
    if negative_log or unit not in MOLAR_UNITS:
        raise PDBbindError(f"unit {quoted(unit)} of {quoted(text)} not understood; {AFFINITY_FORM}")
    molar = float(number) * MOLAR_UNITS[unit]
    if molar <= 0:
        raise PDBbindError(f"{quoted(text)}: a concentration must be above 0")
    _checked_pk(-math.log10(molar), text)
    return kind, relation, molar


def starts_with_affinity(text: str) -> bool:
    """Whether text begins with kind, relation and number; its unit may be wrong."""
    return _AFFINITY.match(text) is not None


def parse_weight(text: str) -> float:
    """1 where there is none.

    Raises:
        PDBbindError: it is no number above 0 and at most 1.
    """
    try:
        weight = float(text or 1)
    except ValueError:
        weight = math.nan
    if not 0 < weight <= 1:
        raise PDBbindError(f"weight {quoted(text)} must be a number above 0 and at most 1")
    return weight


def parse_pk(text: str) -> float | None:
    """Read -log10 of mol/L; None for a missing value.

    Raises:
        PDBbindError: not a plain number, or outside PK_RANGE.
    """
    if text.strip().lower() in _MISSING:
        return None
    if not _SIGNED_NUMBER.fullmatch(text.strip()):
        hint = "; such a text stands in a column affinity_text" if starts_with_affinity(text) else ""
        raise PDBbindError(f"pK {quoted(text)} is not a plain number{hint}")
    return _checked_pk(float(text), text)


def choose_label(parsed: Label | None, stated: float | None, *, trust_stated: bool) -> tuple[Label, float | None]:
    """Return the label from a concentration, a stated pK or both, and by how much (pK) the two differ."""
    if stated is None:
        if parsed is None:
            raise PDBbindError(f"no label; {LINE_FORM}")
        return parsed, None
    if parsed is None:
        return (UNSTATED_KIND, "=", 10.0**-stated), None
    kind, relation, molar = parsed
    return (kind, relation, 10.0**-stated if trust_stated else molar), abs(stated + math.log10(molar))


def parse_resolution(text: str) -> tuple[float | None, bool]:
    """Return (Å or None, is NMR); lists write an unknown resolution as 0.00."""
    if text.lower() == "nmr":
        return None, True
    if text.lower() in _MISSING:
        return None, False
    if not _NUMBER.fullmatch(text):
        raise PDBbindError(f"resolution {quoted(text)} is neither a number of Å nor NMR")
    return float(text) or None, False


def is_year(text: str) -> bool:
    return _YEAR.fullmatch(text) is not None


def parse_year(text: str) -> int | None:
    if text.lower() in _MISSING:
        return None
    match = _YEAR.fullmatch(text)
    if match is None:
        raise PDBbindError(f"year {quoted(text)} is not between 1900 and 2099")
    return int(match.group(1))


def checked_code(code: str) -> str:
    """Return code unless it is unsafe: it becomes a file name here and wherever results are copied to."""
    if len(code) > MAX_CODE or not _SAFE_CODE.fullmatch(code) or _DEVICE_NAME.fullmatch(code):
        raise PDBbindError(f"code {quoted(code)} must be up to {MAX_CODE} of A-Z a-z 0-9 . _ -, not first a dot")
    return code


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number, text) in bounded memory; a line above MAX_LINE bytes is cut to MAX_LINE + 1.

    Raises:
        PDBbindError: the file is missing, a folder or cannot be read.
    """
    if not os.path.isfile(path):
        found = "it is a folder" if os.path.isdir(path) else "there is no such file"
        raise PDBbindError(f"{path}: {found}; an index (INDEX_*.lst, CoreSet.dat) or a .csv is needed")
    try:
        with open(path, "rb") as stream:
            number = 0
            while line := stream.readline(MAX_LINE + 1):
                number += 1
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                tail = line
                while tail and not tail.endswith(b"\n"):
                    tail = stream.readline(65_536)
                try:
                    text = line.rstrip(b"\r\n").decode("utf-8")
                except UnicodeDecodeError:
                    text = line.rstrip(b"\r\n").decode("latin-1")  # old lists write µ as the single byte B5
                yield number, text if len(line) <= MAX_LINE else text.ljust(MAX_LINE + 1)
    except OSError as error:
        raise PDBbindError(f"{path}: cannot be read: {error.strerror or error}") from error


def is_content(text: str) -> bool:
    """Whether a line is neither empty nor a # comment."""
    return bool(text.strip()) and not text.lstrip().startswith("#")


def collect(
    path: Path,
    lines: Iterable[tuple[int, str]],
    parse: Callable[[str], tuple[IndexEntry, float | None]],
    *,
    expected: str = LINE_FORM,
) -> Index:
    """Read every line that is neither empty nor a comment; of several lines with one code the first is kept.

    Args:
        parse: one line -> its entry, and by how much (pK) its two affinities differ, None for a single one.
            A PDBbindError that it raises makes a bad line.

    Raises:
        PDBbindError: no usable line.
    """
    entries: dict[str, IndexEntry] = {}
    bad_lines: list[BadLine] = []
    differing: list[str] = []
    for number, text in lines:
        if not is_content(text):
            continue
        try:
            if len(text) > MAX_LINE:
                raise PDBbindError(f"longer than {MAX_LINE} characters")
            if _CONTROL.search(text):
                raise PDBbindError("control characters: not a line of text")
            entry, difference = parse(text)
            first = entries.setdefault(entry.code.lower(), entry)
            if first is not entry:
                same = first.relation == entry.relation and abs(first.pk - entry.pk) <= PK_TOLERANCE
                label = "the same label" if same else f"another label (pK {first.pk:.2f}), which is kept"
                raise PDBbindError(f"{entry.code} came before with {label}")
        except PDBbindError as error:
            bad_lines.append(BadLine(number, _printable(text, 120), str(error)))
            continue
        if difference is not None and difference > PK_TOLERANCE:
            differing.append(f"{entry.code} by {difference:.2f}")
    if not entries:
        reasons = "; ".join(f"line {bad.line_number}: {bad.reason}" for bad in bad_lines[:3])
        raise PDBbindError(f"{path}: no usable line; {reasons or expected}")
    if differing:
        shown = ", ".join(differing[:5])
        log.warning("%s: pK and concentration differ in %d lines: %s", path, len(differing), shown)
    return Index(tuple(entries.values()), tuple(bad_lines))


def quoted(text: str) -> str:
    """Text for a message: 40 characters at most, none of them a control character."""
    return repr(_printable(text, 40))


def _checked_pk(pk: float, text: str) -> float:
    lowest, highest = PK_RANGE
    if not lowest - 1e-9 <= pk <= highest + 1e-9:
        raise PDBbindError(f"{quoted(text)} is pK {pk:.2f}, outside {lowest:g} to {highest:g}")
    return pk


def _printable(text: str, limit: int) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:limit])
