"""Lines of PDB files and small proteins, for tests of what reads them."""

import numpy as np


def line(
    name,
    residue="ALA",
    number=1,
    xyz=(0, 0, 0),
    *,
    chain="A",
    altloc=" ",
    icode=" ",
    occupancy="  1.00",
    element=None,
    record="ATOM",
):
    """One record; a name of four columns is taken as it is."""
    element = name.strip()[0] if element is None else element
    name = name if len(name) == 4 else f" {name:<3}"
    x, y, z = xyz
    return (
        f"{record:<6}{1:>5} {name}{altloc}{residue:>3} {chain}{number:>4}{icode}   "
        f"{x:8.3f}{y:8.3f}{z:8.3f}{occupancy:>6}{20:6.2f}          {element:>2}\n"
    )


def alanine(number=1, x=0.0, **options):
    """N, CA, C, O and CB in a row of 1.4 Å steps, 1.3 Å from C of one residue to N of the next at x + 5.5."""
    places = {
        "N": (x, 0, 0),
        "CA": (x + 1.4, 0, 0),
        "C": (x + 2.8, 0, 0),
        "O": (x + 2.8, 1.2, 0),
        "CB": (x + 1.4, 1.5, 0),
    }
    return "".join(line(name, number=number, xyz=xyz, **options) for name, xyz in places.items())


def assert_same_atoms(one, other):
    arrays = ("pos", "features", "residue_index", "bonds", "bond_types")
    assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)
    assert one.residue_labels == other.residue_labels
    assert one.atom_names == other.atom_names


def moved(text: str, shift: tuple[float, float, float] = (0.0, 0.0, 0.0), *, noise: float = 0.0, seed: int = 0) -> str:
    draw = np.random.default_rng(seed)
    rows = []
    for row in text.splitlines(keepends=True):
        places = [float(row[30 + 8 * k : 38 + 8 * k]) + shift[k] + draw.normal(0, noise) for k in range(3)]
        rows.append(row[:30] + "".join(f"{x:8.3f}" for x in places) + row[54:])
    return "".join(rows)
