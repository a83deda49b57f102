"""Score poses: a trained checkpoint, a protein file and a ligand file -> pK, Kd and binding free energy.

python predict.py --protein_path receptor.pdb --ligand_path pose.sdf --checkpoint checkpoints/model_best.pth.tar
python predict.py --protein_path receptor.cif.gz --ligand_path docked_poses.sdf --output scores.csv
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch: see main.py

log = logging.getLogger("predict")

BEST_MODEL = Path(__file__).resolve().parent / "checkpoints" / "model_best.pth.tar"
SYNTHETIC = (
    "this model was trained on the synthetic demo set: its numbers show that the program works, "
    "they say nothing about real complexes"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when at least one ligand was scored, 2 when none was."""
    options = _options(arguments)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a terminal without Δ or µ must not end a screening
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # Imported here and below, so that --help and a misspelt option answer at once.
    from src.atoms import StructureError
    from src.checkpoint import CheckpointError
    from src.inference import DeviceError
    from src.storage import StorageError

    try:
        return _score(options)
    except (StructureError, CheckpointError, DeviceError, StorageError) as error:
        log.error("error: %s", error)
        return 2
    except KeyboardInterrupt:
        return 130


def _score(options: argparse.Namespace) -> int:
    import torch

    from src.prediction import load_scorer, sentence
    from src.storage import prepare_folder

    if options.output:
        prepare_folder(options.output.parent)  # before hours of scoring, not after
    scorer = load_scorer(options.checkpoint, options.device)
    if scorer.trained_on_synthetic_data:
        log.warning("%s", SYNTHETIC)
    rows: list[dict] = []
    try:
        for prediction in scorer.score(options.protein_path, options.ligand_path, batch_size=options.batch_size):
            rows.append(prediction.row())
            print(sentence(prediction))
    except torch.OutOfMemoryError as error:
        log.error("error: the memory of the GPU is full: use a smaller --batch_size or --device cpu (%s)", error)
        return 2
    finally:
        if options.output and rows:
            _write(options.output, rows)  # what was scored is kept, whatever ended the scoring
    return 0 if any(row["status"] == "ok" for row in rows) else 2


def _write(path: Path, rows: list[dict]) -> None:
    from src.prediction import COLUMNS
    from src.storage import write_csv, write_json

    if path.suffix == ".json":
        write_json(path, rows)
    else:
        write_csv(path, COLUMNS, [["" if row[name] is None else row[name] for name in COLUMNS] for row in rows])
    log.info("%d rows in %s", len(rows), path)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protein_path", type=Path, required=True, help=".pdb, .ent or .cif, also .gz")
    parser.add_argument(
        "--ligand_path",
        type=Path,
        required=True,
        help=".sdf or .mol2 with the pose, also .gz; a file with several molecules gives a row for each",
    )
    parser.add_argument("--checkpoint", type=Path, default=BEST_MODEL)
    parser.add_argument("--output", type=_table, help="also write the rows to this .csv or .json file")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument("--batch_size", type=_count, default=16, help="poses scored at once (default: 16)")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1")
    return int(text)


def _table(text: str) -> Path:
    if Path(text).suffix not in (".csv", ".json"):
        raise argparse.ArgumentTypeError(f"{text!r} must end in .csv or .json")
    return Path(text)


if __name__ == "__main__":
    sys.exit(main())
