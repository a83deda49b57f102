"""Where CASF-2016 keeps its files, and what is said of those that are missing or damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.evaluation.casf_files import CasfError, find_docking, find_screening, read_core_set, read_rmsd, read_targets
from tests.casf_folder import write_casf


def test_files_are_found_where_the_benchmark_keeps_them(tmp_path: Path) -> None:
    write_casf(tmp_path)
    assert [(one.code, one.pk, one.target) for one in read_core_set(tmp_path / "CoreSet.dat")] == [
        ("3ui7", 9.0, "1"),
        ("3uuo", 7.0, "1"),
        ("5c2h", 5.0, "2"),
    ]
    (case,), (without,) = find_docking(tmp_path)
    assert (without.code, without.stage) == ("3uuo", "docking power")
    assert without.reason.endswith("3uuo_rmsd.dat is missing")
    assert case.rmsd == {"3ui7_100": 1.25, "3ui7_101": 4.5}
    # Not the pocket, which was cut around the native pose: a decoy may lie beside it.
    assert case.protein.name == "3ui7_protein.pdb"
    assert case.native.name == "3ui7_ligand.mol2"
    (target,), (without,) = find_screening(tmp_path)
    assert (without.code, without.stage) == ("5c2h", "screening power")
    assert "decoys_screening" in without.reason
    assert (target.target, target.actives, set(target.poses)) == ("3ui7", ("3uuo", "3ui7"), {"3uuo", "5c2h"})


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(CasfError, match="decoys_docking"):
        find_docking(tmp_path)
    with pytest.raises(CasfError, match=r"TargetInfo\.dat"):
        find_screening(tmp_path)
    (tmp_path / "TargetInfo.dat").write_text("3ui7 3uuo\n")
    with pytest.raises(CasfError, match="decoys_screening"):
        find_screening(tmp_path)
    short = tmp_path / "CoreSet.dat"
    short.write_text("3ui7 1.30 2012 9.00 Ki=1nM\n")
    with pytest.raises(CasfError, match="line 1: 5 columns"):
        read_core_set(short)
    (tmp_path / "x_rmsd.dat").write_text("a 1.0\nb nan\n")
    with pytest.raises(CasfError, match="line 2: 'nan'"):
        read_rmsd(tmp_path / "x_rmsd.dat")
    assert read_targets(tmp_path / "TargetInfo.dat") == {"3ui7": ("3uuo",)}


def test_a_damaged_list_of_rmsd_costs_its_complex(tmp_path: Path) -> None:
    write_casf(tmp_path)
    (tmp_path / "decoys_docking" / "3uuo_rmsd.dat").write_text("3uuo_100 near\n")
    (case,), (damaged,) = find_docking(tmp_path)
    assert case.code == "3ui7"
    assert damaged.code == "3uuo"
    assert "3uuo_rmsd.dat, line 1: 'near' is not a number" in damaged.reason
