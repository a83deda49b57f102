"""Everything that can go wrong in a run, and which tests hold it.

python -m tests.faults.catalogue     a table of the faults with the tests marked `@pytest.mark.fault("B3", ...)`

Tiers: P0 is held by a test of every run, P1 by one of every run or of the slow suite (`python -m pytest -m slow`), P2
where it is cheap. P0+P1: a few cases in every run and many in the slow suite.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).resolve().parents[1]
TIERS = ("P0", "P0+P1", "P1", "P2")


class Fault(NamedTuple):
    row: str  # letter of the section and number
    tier: str
    title: str


def _read(table: str) -> list[Fault]:
    return [Fault(*line.split(maxsplit=2)) for line in table.strip().splitlines() if not line.startswith("#")]


CATALOGUE = _read("""
# Kills and signals
A1  P0+P1  killed at random moments, several times a run
A2  P0  killed at each exact point around a save
A3  P0  Ctrl+C in preprocessing, the first batch, a window, validation, between epochs, a save
A4  P0  Ctrl+C two and three times, the second inside a save
A5  P0  SIGTERM, and SIGUSR1 of a job queue
A6  P1  SIGTERM, then SIGKILL during a slow save
A7  P0  Ctrl+C to the whole group with loader workers
A8  P2  terminal closed, pipe broken
A9  P1  a signal during the imports or before the first checkpoint
A10 P2  stopped and continued
A11 P0  a bug in the model in the middle of a run
A12 P0  two runs in one folder, and the lock of a dead one
# Checkpoint files and disks
B1  P0  disk full during a save
B2  P0  output folder read-only, missing or a file
B3  P0  latest checkpoint cut short, at 30 lengths
B4  P0  a bit flipped at 200 places, a page zeroed
B5  P0  every checkpoint damaged
B6  P1  remains of saves, editor files, folders and strangers' files among the checkpoints
B7  P0  file times and names contradict the stored counters
B8  P0  checkpoint of another network
B9  P0  checkpoint of other training settings
B10 P0  older or newer format, other library versions
B11 P1  names of weights with the prefix of a wrapper
B12 P0  checkpoint of a GPU on a CPU, fp16 scale there and back
B13 P1  NaN in the weights of the latest
B14 P1  network disk: slow, failing fsync, no hard links
B15 P1  checkpoint moved, renamed, linked, in a path with spaces and Unicode
B16 P0  the file gone on from, and the best one, outlive later saves
B17 P1  order of fsync, rename and fsync of the folder
# Exactness of a resume
C1  P0  stopped at every batch of an epoch
C2  P0  stopped two and three times in one epoch
C3  P0  stopped at the last batch, at the end of an epoch, after the last epoch
C4  P0  stopped in a window, with a ragged last one
C5  P0  every complex once an epoch, over a kill and a resume
C6  P0  history without repeated or missing rows
C7  P0  the same order with 0 and 2 loader workers
C8  P0  early stopping, best score, schedule, warm-up and weight average go on
C9  P0  a batch skipped before the checkpoint
C10 P1  random numbers drawn in validation
C11 P1  other batch size or accumulation on resume
C12 P0  data set changed between runs
C13 P0  random state restored before the first batch is made
C14 P0  two equal runs, one and two threads
# Numbers
D1  P0  loss NaN
D2  P0  loss infinite
D3  P0  gradient NaN with a finite loss
D4  P0  gradient infinite with the fp16 scale on
D5  P0  a bad batch at each place of a window
D6  P0  a window without one good batch
D7  P0  nothing but NaN
D8  P0  overflow without end
D9  P0  NaN in a stored graph
D10 P1  gradients of 1e20
D11 P0  fp32, bf16 and fp16 on the CPU
D12 P1  learning rate or weight decay zero, negative, NaN, absurd
D13 P0  validation score NaN
D14 P0  labels all the same, or only one
D15 P0  a batch of one complex
D16 P0  graph without edges, ligand of one atom
D17 P1  one bad complex in every epoch
# Memory
E1  P0  memory runs out in the forward pass
E2  P0  memory runs out in the backward pass or in the step of the optimizer
E3  P0  one complex does not fit alone
E4  P1  memory of a worker process runs out
E5  P2  what failed is kept alive by its exception
E6  P1  memory grows over 500 steps
# Cache and preprocessing
F1  P0  killed while graphs are built
F2  P0  cache of another version or other settings
F3  P0  structure file changed after it was cached
F4  P0  two programs build one cache
F5  P0  worker crashes, ends, hangs, raises or fills memory on one complex
F6  P0  stored graphs damaged
F7  P0  cache of a stranger
F8  P1  disk full, folder read-only while graphs are built
F9  P0  none, one or two complexes usable
F10 P0  many complexes fail
F11 P0  files or folders missing, index and folders disagree
F12 P0  codes in other letter case, codes twice
F13 P1  20,000 small entries
F14 P0  the same cache by one and two workers
# Index lines and labels
G1  P0  relations = < > <= >= ~ of Kd, Ki and IC50
G2  P0  units from M to fM, both signs of micro, a constant of 0
G3  P0  index with and without a pK column, and both disagreeing
G4  P0  resolution NMR, missing, 0.00, poor
G5  P0  remarks: incomplete, covalent, isomer, 2-mer, two ligands, slashes missing or twice
G6  P0  comments, blank lines, CRLF, BOM, tabs, non-ASCII, no last newline
G7  P0  short lines, letters in numbers, decimal comma, two values
G8  P0  label missing, NaN or out of range
G9  P0  table of a user: names of columns, quotes, repeated columns, units
G10 P0  codes that are paths, too long, device names, or extended
G11 P1  200,000 lines, one line of 50 MB
G12 P0  lines in another order
# Proteins
H1  P0  alternative locations
H2  P0  insertion codes
H3  P0  several models
H4  P0  no atoms: remarks, nothing, garbage, binary, a web page
H5  P0  hetero atoms, waters or nucleic acid only
H6  P0  numbers of residues and atoms negative, blank, starred, hybrid-36
H7  P0  CRLF, tabs, lower case, short lines, columns blank
H8  P0  gzip, mmCIF, .ent, wrong file names
H9  P0  coordinates NaN, infinite, starred, huge
H10 P0  modified residues, metals, cofactors, unknown elements
H11 P1  atoms after CONECT, END, TER
H12 P0  side chains missing, CA only
H13 P1  atoms twice, two residues with one number
H14 P1  assembly of 100,000 atoms
H15 P0  the ligand in the protein's file
H16 P0  bytes that are not UTF-8
H17 P1  cut at every 200th byte
# Ligands
I1  P0  hydrogens all, polar or none
I2  P0  coordinates zero, flat or absent
I3  P0  several molecules in a file
I4  P0  molecules that cannot be sanitized
I5  P0  MOL2 with unknown types, without hydrogens, two molecules, CRLF
I6  P1  SDF and MOL2 disagree
I7  P0  metals, boron, selenium, isotopes, dummy atoms
I8  P1  salts and fragments
I9  P0  empty, delimiter only, cut short, garbage, gzip, missing
I10 P1  over 999 atoms, a peptide, one ion
I11 P0  a molecule that never ends parsing
I12 P1  PDB, PDBQT or SMILES in place of a ligand file
I13 P2  radicals and charges
I14 P0  names with commas, quotes, newlines, formulas, HTML, escape codes
# Geometry
J1  P0  ligand in another coordinate frame
J2  P0  atoms on top of each other
J3  P2  ligand in vacuum, in another chain, at the edge
J4  P0  whole complex turned and moved
J5  P0  atoms and chains in another order
J6  P0  one complex alone and among eight
J7  P2  a residue exactly at the cutoff
# Security
K1  P0  code in a checkpoint, at any depth, and no way around the check
K2  P0  raw pickle, legacy formats, no zip
K3  P0  compressed archive, too many entries, lying sizes
K4  P0  tensor larger than its data, wrong shapes
K5  P0  settings in a checkpoint that are absurd, code or unknown
K6  P0  gzip file that unpacks without end
K7  P0  paths and links out of the data folder
K8  P1  guessable temporary names, rights of files, links in the way
K9  P0+P1  mutated structure and index files
K10 P1  a version of torch with known holes
# Several processes that train together
L1  P0  NaN on one rank
L2  P0  SIGTERM or SIGINT to torchrun, or to one rank
L3  P1  one rank killed
L4  P0  a data set that the ranks cannot divide evenly
L5  P1  two ranks against one, with the same batches
L6  P0  all ranks want to write the log and the checkpoints
L7  P1  a run of two ranks goes on with one or four, and back
# Settings, command line and surroundings
M1  P0  misspelt setting
M2  P0  wrong types, ranges and contradictions, all at once
M3  P0  paths with spaces, Unicode, ~, relative, from another folder
M4  P0  no GPU, or not that one
M5  P0  no terminal, a dumb or a narrow one
M6  P1  C locale
M7  P0  optional package missing
M8  P0  predicting with missing or wrong files, one bad complex among many
M9  P2  foreign version of Python
M10 P0  output is already there
M11 P2  clock set back
""")

# Row -> why nothing in this program can be held to it.
NOT_APPLICABLE: dict[str, str] = {}

NEEDS_A_GPU = (
    "kernels of CUDA that do not add up in one order",
    "memory of a GPU that is full or in pieces",
    "fp16 and bf16 kernels of a GPU",
    "pinned memory of the loaders",
)


@dataclass
class Marked:
    """The tests of one row: node ids without parameters."""

    quick: set[str] = field(default_factory=set)
    slow: set[str] = field(default_factory=set)


class CollectionError(RuntimeError):
    """Tests cannot be collected, or a marker names no row."""


class _Markers:
    """A plugin of pytest that reads the markers of what is collected."""

    def __init__(self) -> None:
        self.rows: dict[str, Marked] = {}
        self.faults: list[str] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.faults.append(f"{report.nodeid}: {report.longreprtext.strip().splitlines()[-1]}")

    def pytest_collection_modifyitems(self, items: Sequence[pytest.Item]) -> None:
        for test in items:
            for mark in test.iter_markers("fault"):
                if not mark.args or not all(isinstance(row, str) for row in mark.args):
                    self.faults.append(f"{test.nodeid}: fault{mark.args!r} names no row")
                elif _counts(test):
                    for row in mark.args:
                        self._add(row, test)

    def _add(self, row: str, test: pytest.Item) -> None:
        marked = self.rows.setdefault(row, Marked())
        tests = marked.slow if test.get_closest_marker("slow") else marked.quick
        tests.add(test.nodeid.partition("[")[0])


def marked_rows(folder: Path = TESTS) -> dict[str, Marked]:
    """Row -> the tests in `folder` that carry its marker; skipped and expected failures hold nothing.

    Raises:
        CollectionError: a file cannot be collected, or a marker has no row.
    """
    markers = _Markers()
    without = [part for name in ("terminal", "cacheprovider", "faulthandler") for part in ("-p", f"no:{name}")]
    status = pytest.main([str(folder), "--collect-only", "-n0", "-m", "", *without], plugins=[markers])
    if markers.faults or status != pytest.ExitCode.OK:
        raise CollectionError("\n".join(markers.faults) or f"{folder}: tests cannot be collected ({status!r})")
    return markers.rows


def missing(marked: dict[str, Marked]) -> list[str]:
    """Faults that lack a test in the suite that their tier asks for, in words."""
    return [f"{fault.row} {what}: {fault.title}" for fault in CATALOGUE for what in _lacks(fault, marked)]


def table(marked: dict[str, Marked]) -> Iterator[str]:
    """Lines of Markdown: row, fault, tier, tests that hold it, and their suite."""
    yield "| row | fault | tier | held by | suite |"
    yield "|---|---|---|---|---|"
    for fault in CATALOGUE:
        held = marked.get(fault.row, Marked())
        tests = ", ".join(_short(sorted(held.quick | held.slow)))
        yield f"| {fault.row} | {fault.title} | {fault.tier} | {tests} | {_suite(fault, held, marked)} |"


def _suite(fault: Fault, held: Marked, marked: dict[str, Marked]) -> str:
    if fault.row in NOT_APPLICABLE:
        return f"not applicable: {NOT_APPLICABLE[fault.row]}"
    suites = [name for name in ("quick", "slow") if getattr(held, name)]
    lacks = [f"**{what}**" for what in _lacks(fault, marked)]
    return ", ".join(suites + lacks) or "not held"


def _lacks(fault: Fault, marked: dict[str, Marked]) -> list[str]:
    held = marked.get(fault.row, Marked())
    if fault.row in NOT_APPLICABLE or fault.tier == "P2":
        return []
    if fault.tier == "P1":
        return [] if held.quick or held.slow else ["no test"]
    lacks = [] if held.quick else ["no quick test"]
    return lacks if fault.tier == "P0" or held.slow else [*lacks, "no slow test"]


def _short(tests: Iterable[str]) -> list[str]:
    """`tests/test_a.py::test_b`, `tests/test_a.py::test_c` -> `test_a: b`, `c`."""
    words, file = [], None
    for test in tests:
        path, _, name = test.partition("::")
        stem = Path(path).stem
        words.append((f"{stem}: " if stem != file else "") + name.removeprefix("test_"))
        file = stem
    return words


def _counts(test: pytest.Item) -> bool:
    """Whether the test runs on this machine and has to pass."""
    skipped = any(mark.args and mark.args[0] is True for mark in test.iter_markers("skipif"))
    return not (skipped or test.get_closest_marker("skip") or test.get_closest_marker("xfail"))


if __name__ == "__main__":
    print("\n".join(table(marked_rows())))
    print("\nNeeds a GPU, and is held by no test:\n" + "\n".join(f"- {line}" for line in NEEDS_A_GPU))
