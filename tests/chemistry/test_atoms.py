import gzip

import numpy as np
import pytest

from src.chemistry import atoms as atoms_module
from src.chemistry.atoms import Atoms, StructureError, clean_name, iter_lines, read_bytes, sorted_bonds, take


@pytest.fixture
def chain() -> Atoms:
    """Four atoms in a row, in residues of one, two and one atoms."""
    return Atoms(
        pos=np.arange(12.0).reshape(4, 3),
        features=np.arange(36, dtype=np.uint8).reshape(4, 9),
        residue_index=np.array([0, 1, 1, 2], dtype=np.int32),
        residue_labels=("A:GLY1", "A:ALA2", "A:SER3"),
        atom_names=("N", "CA", "C", "O"),
        bonds=np.array([[0, 1, 2], [1, 2, 3]], dtype=np.int32),
        bond_types=np.array([1, 2, 3], dtype=np.uint8),
    )


def test_take_renumbers_bonds_and_residues(chain):
    part = take(chain, np.array([False, True, False, True]))
    assert part.atom_names == ("CA", "O")
    assert part.residue_labels == ("A:ALA2", "A:SER3")
    assert part.residue_index.tolist() == [0, 1]
    assert part.bonds.shape == (2, 0)
    part = take(chain, np.array([False, True, True, True]))
    assert part.bonds.tolist() == [[0, 1], [1, 2]]
    assert part.bond_types.tolist() == [2, 3]
    np.testing.assert_array_equal(part.pos, chain.pos[1:])
    np.testing.assert_array_equal(part.features, chain.features[1:])


def test_take_all_and_nothing(chain):
    whole = take(chain, np.ones(4, dtype=bool))
    assert whole.residue_labels == chain.residue_labels
    np.testing.assert_array_equal(whole.bonds, chain.bonds)
    nothing = take(chain, np.zeros(4, dtype=bool))
    assert len(nothing) == 0
    assert nothing.residue_labels == ()
    assert nothing.bonds.shape == (2, 0)


@pytest.mark.parametrize("keep", [np.array([0, 1, 2, 3]), np.ones(3, dtype=bool)])
def test_take_wants_a_mask(chain, keep):
    with pytest.raises(AssertionError):
        take(chain, keep)


def test_sorted_bonds():
    bonds, kinds = sorted_bonds([(3, 1, 2), (0, 1, 1), (1, 3, 2)])
    assert bonds.tolist() == [[0, 1], [1, 3]]
    assert kinds.tolist() == [1, 2]
    assert sorted_bonds([])[0].shape == (2, 0)


@pytest.mark.parametrize("name", ["plain.txt", "packed.gz", "misnamed.pdb", "späce in name.gz"])
@pytest.mark.parametrize("packed", [True, False])
def test_gzip_is_seen_by_content(tmp_path, name, packed):
    text = b"one\r\ntwo\n"
    (tmp_path / name).write_bytes(gzip.compress(text) if packed else text)
    assert read_bytes(tmp_path / name) == text
    assert list(iter_lines(tmp_path / name)) == [b"one", b"two"]


@pytest.mark.fault("K6")
def test_bomb_stops_at_the_cap(tmp_path, monkeypatch):
    monkeypatch.setattr(atoms_module, "MAX_BYTES", 10_000)
    monkeypatch.setattr(atoms_module, "MAX_LINE_BYTES", 1_000)
    bomb = tmp_path / "bomb.gz"
    bomb.write_bytes(gzip.compress(b"A" * 10_000_000))
    unpacked, read = [], gzip.GzipFile.read
    monkeypatch.setattr(
        gzip.GzipFile, "read", lambda stream, size=-1: unpacked.append(data := read(stream, size)) or data
    )
    with pytest.raises(StructureError, match=r"bomb.gz.*10,000 bytes"):
        read_bytes(bomb)
    assert sum(map(len, unpacked)) <= atoms_module.PIECE_BYTES
    with pytest.raises(StructureError, match=r"line of over 1,000 bytes"):
        list(iter_lines(bomb))


@pytest.mark.fault("H4", "I9")
@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "no such file"),
        (b"", "empty"),
        (b" \n\n", "empty"),
        (gzip.compress(b"x" * 999, mtime=0)[:20], "cannot be read"),
    ],
)
def test_unreadable_files(tmp_path, content, cause):
    path = tmp_path / "some.pdb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StructureError, match=rf"some\.pdb.*{cause}"):
        read_bytes(path)


def test_folder_is_named(tmp_path):
    with pytest.raises(StructureError, match="is not a file"):
        read_bytes(tmp_path)


@pytest.mark.fault("I14")
@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("aspirin", "aspirin"),
        ("a\x1b[31mred\x07", "a [31mred"),
        ("two\nlines\tand  blanks ", "two lines and blanks"),
        ("\u202eabc\u2028def", "abc def"),
        ("x" * 500, "x" * 100),
        ("\0\0", ""),
    ],
)
def test_clean_name(text, clean):
    assert clean_name(text) == clean
