"""A CASF folder of three complexes, with decoys of one of them."""

from __future__ import annotations

from pathlib import Path

CORE = """#code  resl  year  logKa      Ka           target
3ui7  1.30  2012   9.00     Ki=1nM            1
3uuo  1.70  2012   7.00     Ki=100nM          1
5c2h  1.50  2016   5.00     Kd=10uM           2
"""


def write_casf(root: Path) -> None:
    (root / "power_screening").mkdir(parents=True)
    (root / "CoreSet.dat").write_text(CORE)
    (root / "power_screening" / "TargetInfo.dat").write_text("# text\n#T  L1  L2\n3UI7  3uuo  3ui7\n5c2h  5c2h\n")
    for code in ("3ui7", "3uuo"):
        (root / "coreset" / code).mkdir(parents=True)
        (root / "coreset" / code / f"{code}_protein.pdb").touch()
        (root / "coreset" / code / f"{code}_pocket.pdb").touch()
    (root / "coreset" / "3ui7" / "3ui7_ligand.mol2").touch()
    (root / "decoys_docking").mkdir()
    for code in ("3ui7", "3uuo"):
        (root / "decoys_docking" / f"{code}_decoys.mol2").touch()
    (root / "decoys_docking" / "3ui7_rmsd.dat").write_text("#code rmsd\n3ui7_100  1.25\n3ui7_101,4.50\n")
    (root / "decoys_screening" / "3ui7").mkdir(parents=True)
    for ligand in ("3uuo", "5c2h"):
        (root / "decoys_screening" / "3ui7" / f"3ui7_{ligand}.mol2").touch()
