"""Seconds to read, or to refuse, the worst files that a stranger may send, by their size.

python benchmarks/worst_inputs.py [--megabytes 1 2 4]

Twice the size should take about twice the time. Each file is read once for its graph and once for its sequence; the
steps themselves are counted by tests/faults/test_worst_inputs.py.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count, takewhile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.chemistry.atoms import StructureError  # noqa: E402
from src.chemistry.proteins import read_protein  # noqa: E402
from src.pdbbind.folders import ComplexFiles  # noqa: E402
from src.similarity.sequences import read_chains  # noqa: E402

LINE_BYTES = 81
CIF_NAMES = ("group_PDB", "type_symbol", "label_atom_id", "label_comp_id", "label_asym_id", "label_seq_id")
CIF_HEAD = "data_x\nloop_\n" + "".join(f"_atom_site.{name}\n" for name in (*CIF_NAMES, "Cartn_x", "Cartn_y", "Cartn_z"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[1.0, 2.0, 4.0])
    sizes = parser.parse_args().megabytes
    logging.disable(logging.WARNING)
    print(f"{'seconds by megabytes':<42}" + "".join(f"{size:10g}" for size in sizes))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "some.pdb"
        for name, make in INPUTS.items():
            graph, sequence = [], []
            for size in sizes:
                path.write_text(make(int(size * 1e6)))
                graph.append(_seconds(lambda: read_protein(path)))
                sequence.append(_seconds(lambda: read_chains(ComplexFiles("1abc", path, None, ()))))
            print(f"{name:<42}" + "".join(f"{seconds:10.2f}" for seconds in graph))
            print(f"{'  its sequence':<42}" + "".join(f"{seconds:10.2f}" for seconds in sequence))


def _seconds(read: Callable[[], object]) -> float:
    start = time.process_time()
    with contextlib.suppress(StructureError):  # refused, which is an answer too
        read()
    return time.process_time() - start


def _atom(number: int, x: float, y: float, *, name: str = "CA", residue: str = "ALA") -> str:
    place = f"{residue:<4}A{number % 10_000:>4}    {x:8.3f}{y:8.3f}{0:8.3f}"
    return f"ATOM  {1:>5}  {name:<3} {place}  1.00  0.00           {name[0]}\n"


def _atoms(size: int, make: Callable[[int], str]) -> str:
    """As many pieces of text as size allows."""
    pieces = takewhile(lambda number: number * LINE_BYTES < size, count())
    return _atom(1, -900.0, -900.0) + "".join(make(number) for number in pieces)


def _grid(number: int) -> tuple[float, float]:
    return 3.0 * (number % 300) - 450.0, 3.0 * (number // 300) - 450.0


INPUTS: dict[str, Callable[[int], str]] = {
    "residues far apart": lambda size: _atoms(size, lambda n: _atom(n, *_grid(n))),
    "all with one number": lambda size: _atoms(size, lambda n: _atom(1, *_grid(n))),
    "all in one place": lambda size: _atoms(size, lambda n: _atom(n, 0.0, 0.0)),
    "one atom, many times": lambda size: _atoms(size, lambda n: _atom(1, 0.0, 0.0)),
    "waters with one number": lambda size: _atoms(size, lambda n: _atom(1, *_grid(n), name="O", residue="HOH")),
    "a MODEL for each atom": lambda size: _atoms(size, lambda n: f"MODEL\n{_atom(1, *_grid(n))}ENDMDL\n"),
    "blank lines before a word of mmCIF": lambda size: "\n" * size + "x_atom_site.",
    "blank lines before a table": lambda size: "\n" * size + CIF_HEAD + "ATOM C CA ALA A 1 0 0 0\n",
    "a word of mmCIF, many times": lambda size: "x_atom_site." * (size // 12) + "\n" + CIF_HEAD,
    "quotation marks in a table": lambda size: CIF_HEAD + "'" * size + "\n",
    "an mmCIF table": lambda size: (
        CIF_HEAD + "".join("ATOM C CA ALA A {} {} {} 0\n".format(n, *_grid(n)) for n in range(size // 32))
    ),
}

if __name__ == "__main__":
    main()
