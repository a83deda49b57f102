"""How good are poses modelled on a crystal ligand, and how far is the score of a wrong pose off?

python benchmarks/posing.py --data $AIDD_REAL_DATA [--checkpoint checkpoints/cleansplit] [--num_pairs 120]

Crystal poses: the ligand of one complex of pdbbind/ is modelled, from its SMILES, on the ligand of another complex of
the same protein and in that protein; the two are superposed on their CA atoms. One pair for each protein. The distance
to the crystal pose is the RMSD of heavy atoms, equivalent ones exchanged (RDKit's CalcRMS). Then what a wrong pose
costs: the change of the pK by the RMSD, and the error beside that of the crystal pose. Series: all ligands of each
target of fep/ are modelled on the one that is most like the others (mean Tanimoto similarity of ECFP4), by
`predict.py`, and ranked beside the given poses. What src/chemistry/analogue_poses.py weighs and limits was chosen on
crystal poses alone.
"""

from __future__ import annotations

import argparse
import csv
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from rdkit import Chem, DataStructs
from rdkit.Chem.rdMolAlign import CalcRMS
from scipy.spatial.transform import Rotation

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.chemistry.atoms import Atoms, StructureError  # noqa: E402
from src.chemistry.ligands import Ligand, LigandRecord, ligand_records, read_ligand  # noqa: E402
from src.chemistry.proteins import read_protein  # noqa: E402
from src.pdbbind.folders import ComplexFiles  # noqa: E402
from src.pdbbind.index import read_dataset  # noqa: E402
from src.scoring.ensemble import Ensemble, find_checkpoints, load_ensemble  # noqa: E402
from src.scoring.poses import Pose  # noqa: E402
from src.scoring.smiles_files import KIND  # noqa: E402
from src.similarity.comparison import Similarity, Thresholds, fingerprints  # noqa: E402
from src.similarity.sequences import read_chains  # noqa: E402

SAME_PROTEIN = Thresholds(1.0, 1.0, 0.95)  # sequence identity
ANALOGUES = (0.25, 0.999)  # Tanimoto similarity of the two ligands
LEAST_CA, SUPERPOSED, SAME_SITE = 12, 1.0, 8.0  # atoms; Å between them; Å between the ligands
RMSD_BINS = (0.0, 1.0, 2.0, 3.0, 5.0, np.inf)  # Å


@dataclass(frozen=True)
class Pair:
    code: str  # whose ligand is posed
    template: str
    pk: float
    truth: Chem.Mol  # its crystal pose in the frame of the template
    files: ComplexFiles
    template_files: ComplexFiles


def main() -> None:
    options = _options()
    if "crystal" in options.parts:
        _crystal_poses(options)
    if "series" in options.parts:
        _series(options)


def _crystal_poses(options: argparse.Namespace) -> None:
    ensemble = load_ensemble(find_checkpoints([options.checkpoint]), "cpu")
    rows, reasons, seconds = [], [], []
    for pair in _pairs(options.data / "pdbbind", options.num_pairs):
        start = time.monotonic()
        modelled = _modelled(pair, ensemble)
        seconds.append(time.monotonic() - start)
        if isinstance(modelled, str):
            reasons.append(modelled)
            continue
        pk, mol, share = modelled
        crystal = next(ensemble.score(_protein(pair.files), pair.files.ligands[0])).pk
        if crystal is not None:
            rows.append((share, CalcRMS(mol, pair.truth, maxMatches=5000), pk, crystal, pair.pk))
    table = np.array(rows)
    print(f"{len(rows)} of {len(rows) + len(reasons)} ligands posed, median {np.median(seconds):.1f} s each")
    for reason in sorted({text.split(" with ")[0].split(":")[0] for text in reasons}):
        print(f"  not posed: {reason}")
    large = table[:, 0] >= 0.5
    for name, chosen in (("at least half", large), ("less than half", ~large)):
        rmsd = table[chosen, 1]
        if len(rmsd):
            below = ", ".join(f"{np.mean(rmsd < limit):.0%} below {limit} Å" for limit in (1, 2))
            print(f"core {name} of the ligand: {len(rmsd)} ligands, RMSD median {np.median(rmsd):.2f} Å, {below}")
    print("\nRMSD, Å     poses  |pK(modelled) - pK(crystal)|  RMSE modelled  RMSE crystal")
    for low, high in pairwise(RMSD_BINS):
        _, rmsd, pk, crystal, measured = table.T
        one = (low <= rmsd) & (rmsd < high)
        if one.any():
            change = np.abs(pk - crystal)[one].mean()
            errors = [np.sqrt(np.mean((score - measured)[one] ** 2)) for score in (pk, crystal)]
            print(f"{low:.0f} to {high:<6.0f}{one.sum():>6}{change:>20.2f}{errors[0]:>22.2f}{errors[1]:>14.2f}")


def _modelled(pair: Pair, ensemble: Ensemble) -> tuple[float, Chem.Mol, float] | str:
    """pK, molecule and share of its core; or why there is no pose."""
    templates = tuple(ligand_records(pair.template_files.ligands[0]))[:1]
    record = LigandRecord(Path("series.smi"), KIND, 1, f"{pair.code}\n{Chem.MolToSmiles(pair.truth)}\n")
    pose = Pose(_protein(pair.template_files), Path("series.smi"), 1, record)
    (prediction,) = ensemble.predict([pose], ensemble.reader(templates=templates).read([pose]))
    if prediction.pk is None:
        return prediction.failure
    mol = Chem.RemoveHs(Chem.MolFromMolBlock(prediction.modelled.text))
    core, atoms = (int(word) for word in prediction.pose.rpartition("core ")[2].split() if word.isdigit())
    return prediction.pk, mol, core / atoms


def _pairs(data: Path, count: int) -> Iterator[Pair]:
    """Two analogues in one protein, whose CA atoms can be superposed; one pair for each protein."""
    index, files = read_dataset(data, None)
    entries, ligands, chains = [], [], []
    for entry in index.entries:
        odd = entry.covalent or entry.multi_ligand or entry.incomplete_ligand or entry.bound
        if entry.code in files and not odd:
            try:
                ligand = read_ligand(files[entry.code].ligands)
            except StructureError:
                continue
            sequences = read_chains(files[entry.code]).sequences
            if 10 <= len(ligand.atoms) <= 50 and not ligand.read_as.startswith("partial") and sequences:
                entries.append(entry)
                ligands.append(ligand)
                chains.append(sequences)
    similarity = Similarity(chains, [ligand.smiles for ligand in ligands])
    proteins = defaultdict(list)
    for number, cluster in enumerate(similarity.clusters(SAME_PROTEIN)):
        proteins[cluster].append(number)
    groups, rng = [group for group in proteins.values() if len(group) > 1], random.Random(0)
    rng.shuffle(groups)
    for group in groups:
        found = [
            (one, other)
            for one in group
            for other, alike in zip(group, similarity.tanimoto(one, group), strict=True)
            if one != other and ANALOGUES[0] <= alike < ANALOGUES[1]
        ]
        rng.shuffle(found)
        for one, other in found[:5]:
            codes = entries[one].code, entries[other].code
            truth = _in_frame(ligands[one], files[codes[0]], ligands[other], files[codes[1]])
            if truth is not None:
                yield Pair(*codes, entries[one].pk, truth, files[codes[0]], files[codes[1]])
                count -= 1
                break
        if not count:
            return


def _in_frame(ligand: Ligand, files: ComplexFiles, other: Ligand, other_files: ComplexFiles) -> Chem.Mol | None:
    """The ligand where it lies in the other protein; None for proteins that differ there, or another site."""
    try:
        here, there = (_alpha_carbons(read_protein(_protein(one)).atoms) for one in (files, other_files))
    except StructureError:
        return None
    common = sorted(here.keys() & there.keys())
    centre = other.atoms.pos.mean(axis=0)
    common = [name for name in common if np.linalg.norm(there[name] - centre) < 20.0]
    if len(common) < LEAST_CA:
        return None
    a, b = (np.array([one[name] for name in common]) for one in (here, there))
    turn, _ = Rotation.align_vectors(b - b.mean(axis=0), a - a.mean(axis=0))
    off = turn.apply(a - a.mean(axis=0)) + b.mean(axis=0) - b
    pos = turn.apply(ligand.atoms.pos - a.mean(axis=0)) + b.mean(axis=0)
    if np.sqrt((off**2).sum(axis=1).mean()) > SUPERPOSED or np.linalg.norm(pos.mean(axis=0) - centre) > SAME_SITE:
        return None
    mol = Chem.Mol(ligand.mol)
    mol.GetConformer().SetPositions(pos)
    return mol


def _alpha_carbons(atoms: Atoms) -> dict[tuple, np.ndarray]:
    residues = zip(atoms.residue_index.tolist(), atoms.atom_names, atoms.pos, strict=True)
    return {atoms.residue_ids[number][1:]: pos for number, name, pos in residues if name == "CA"}


def _protein(files: ComplexFiles) -> Path:
    return files.protein or files.pocket


def _series(options: argparse.Namespace) -> None:
    with open(options.data / "fep" / "labels.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    targets = defaultdict(list)
    for row in rows:
        targets[row["target"]].append(row)
    print("\ntarget      ligands  posed  template                     R given  R modelled")
    found = []
    for target, members in sorted(targets.items()):
        given, modelled, template = _scores(options, members)
        measured = np.array([float(row["pK"]) for row in members])
        both = np.isfinite(given) & np.isfinite(modelled)
        r = [np.corrcoef(one[both], measured[both])[0, 1] for one in (given, modelled)]
        found.append((both.sum(), *r))
        print(f"{target:12}{len(members):>7}{both.sum():>7}  {template:28}{r[0]:>8.2f}{r[1]:>12.2f}", flush=True)
    weights, *r = np.array(found).T
    print(
        f"weighted by ligands, both on those that were posed: R given {np.average(r[0], weights=weights):.3f}, ", end=""
    )
    print(f"modelled {np.average(r[1], weights=weights):.3f}")


def _scores(
    options: argparse.Namespace, members: Sequence[dict[str, str]]
) -> tuple[np.ndarray, np.ndarray, str] | None:
    """pK of the given poses and of the modelled ones, [ligands] each, and the code of the template."""
    folder = options.data / "fep"
    protein, paths = folder / members[0]["protein_path"], [folder / row["ligand_path"] for row in members]
    smiles = [read_ligand([path]).smiles for path in paths]
    bits = fingerprints(smiles)
    central = int(np.argmax([np.mean(DataStructs.BulkTanimotoSimilarity(one, bits)) for one in bits]))
    with tempfile.TemporaryDirectory() as name:
        drawn = Path(name) / "series.smi"
        lines = [f"{text} {row['code']}" for text, row in zip(smiles, members, strict=True)]
        drawn.write_text("\n".join(lines) + "\n")
        command = ["predict.py", "--protein_path", protein, "--checkpoint", options.checkpoint, "--quiet"]
        found = []
        for more in (["--ligand_path", *paths], ["--ligand_path", drawn, "--template", paths[central]]):
            table = Path(name) / f"{len(found)}.csv"
            whole = [sys.executable, *map(str, [*command, *more, "--output", table])]
            subprocess.run(whole, cwd=ROOT, check=True)
            with open(table, newline="", encoding="utf-8") as file:
                found.append(np.array([float(row["pK"] or "nan") for row in csv.DictReader(file)]))
    return *found, members[central]["code"]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with pdbbind/ and fep/")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "checkpoints" / "cleansplit", help="file or folder")
    parser.add_argument("--num_pairs", type=int, default=120)
    parser.add_argument("--parts", nargs="+", choices=("crystal", "series"), default=("crystal", "series"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
