"""Score poses: trained models, a protein and ligands in its frame -> pK, Kd and free energy, and how sure they are.

One pose:
  python predict.py --protein_path receptor.pdb --ligand_path pose.sdf
A screening, to go on with after it was stopped by giving the same command again:
  python predict.py --protein_path receptor.pdb --ligand_path docked.sdf.gz --output scores.csv.gz
The best 100 of a folder of files, as molecules with their scores:
  python predict.py --protein_path receptor.cif --ligand_path docked_poses/ --top 100 --output best.sdf
Of many poses of each ligand, known by its title, the best:
  python predict.py --protein_path receptor.pdb --ligand_path docked.sdf --best_pose --output scores.csv
Analogues as SMILES, each posed on the crystal ligand that it fits best; the poses go into scores_poses.sdf:
  python predict.py --protein_path receptor.pdb --ligand_path series.smi --template crystal.sdf --output scores.csv
Many proteins (columns protein_path and ligand_path; its other columns are kept):
  python predict.py --pairs pairs.csv --output scores.csv
Complexes with the ligand inside, as co-folding programs, docking programs and the PDB write them:
  python predict.py --complex_path models/ --output scores.csv
Several models (mean, standard deviation), and how much the score hangs on 0.1 Å in the pose:
  python predict.py --protein_path receptor.pdb --ligand_path pose.sdf --checkpoint runs/ --jitter 10
A series of which some ligands are measured (columns protein_path, ligand_path and pK):
  python predict.py --protein_path receptor.pdb --ligand_path series.sdf --known known.csv --output scores.csv
A series of ligands of one target as a page, with what makes the differences:
  python predict.py --protein_path receptor.pdb --ligand_path series.sdf --report series.html
Why this score: a page, tables and files for PyMOL of each pose, what each atom and residue adds to its pK:
  python predict.py --protein_path receptor.pdb --ligand_path pose.sdf --explain why/
Whether the model keeps its promises on this machine:
  python predict.py --selftest
In a pipe:
  zcat docked.sdf.gz | python predict.py --protein_path receptor.pdb --ligand_path - --output - > scores.csv
"""

import os
import sys

# Of this folder src is loaded, with python -P too, and no other file: one of a library's name is not the library.
# What is imported before that is part of the interpreter.
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from src import shut_out_foreign_modules

if __name__ in ("__main__", "__mp_main__"):  # the second in a worker process
    shut_out_foreign_modules()

from src.system.installation import installation_fault

if installation_fault():
    sys.exit(f"error: {installation_fault()}")

import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

from src.run.scoring_options import STANDARD, read_options
from src.system.terminal import counted, prepare_terminal

if TYPE_CHECKING:
    import argparse

    from src.explanation.explainer import Explainer
    from src.explanation.series_page import SeriesPage
    from src.scoring.conditioning import Known
    from src.scoring.ensemble import Ensemble
    from src.scoring.poses import Pose
    from src.scoring.prediction import Prediction
    from src.scoring.score_files import ScoreFile, ScoreStream

log = logging.getLogger("predict")

CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"
NUM_SHOWN = 20  # sentences on the screen when the rows go into a file


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when at least one ligand was scored, 2 when none was; 1 when a check of --selftest failed."""
    options = _options(arguments)
    prepare_terminal(logging.ERROR if options.quiet else logging.INFO)
    # Imported here and below, so that --help and a misspelt option answer at once.
    from src.system.errors import UserError
    from src.system.stop_signals import exit_code, signals_interrupt
    from src.system.terminal import let_go_of_output

    try:
        with signals_interrupt():
            if options.merge:
                from src.scoring.shards import merge_shards

                merge_shards(options.output, overwrite=options.overwrite)
                return 0
            return _selftest(options) if options.selftest else _score(options)
    except UserError as error:
        log.error("error: %s", error)
        return 2
    except KeyboardInterrupt as interrupt:
        from src.run.scoring_setup import starts_anew
        from src.scoring.score_files import is_unfinished

        if is_unfinished(options.output) and not starts_anew(options):
            how = "the same command without --overwrite" if options.overwrite else "the same command"
            log.error("stopped; the rows so far are in %s. Give %s to go on", options.output, how)
        return exit_code(interrupt)
    except BrokenPipeError:  # whoever read the rows has seen enough
        return 0
    finally:
        let_go_of_output()


def _score(options: "argparse.Namespace") -> int:
    from src.run.scoring_setup import conditioned_models

    with conditioned_models(options, _checkpoints(options)) as (models, known):
        is_given = options.pairs or options.ligand_path or options.complex_path
        return _score_poses(options, models, known) if is_given else 0


def _score_poses(options: "argparse.Namespace", models: "Sequence[Path]", known: "Sequence[Known]") -> int:
    import torch

    from src.run import scoring_setup
    from src.scoring.row_formats import own_names
    from src.scoring.screening import screen

    given, poses, inputs = scoring_setup.find_poses(options)
    poses = options.shard.of(poses) if options.shard else poses
    ensemble, checkpoints = _ensemble(options, models), _checkpoints(options)
    best_pose = options.best_pose is not None
    structures = scoring_setup.has_structures(options, given, inputs)
    names = ensemble.columns(
        per_model=options.per_model, jitter=bool(options.jitter), best_pose=best_pose, structures=structures
    )
    own = own_names(names, given)
    # Before hours of scoring, not after.
    report = scoring_setup.open_report(options, checkpoints, ensemble, given, inputs, known)
    made_from = [*checkpoints, *filter(None, [options.known])]
    output = scoring_setup.open_output(options, [*given, *own.values()], made_from, inputs)
    if earlier := output.num_rows if output else 0:
        log.info("going on with %s after %s", options.output, counted(earlier, "row"))
    explainer = scoring_setup.open_explainer(options, models, ensemble, goes_on=bool(earlier))
    numbers = count(earlier + 1)
    predictions = screen(ensemble, islice(poses, earlier, None), scoring_setup.screening_options(options))
    tally, start = scoring_setup.open_tally(options), time.monotonic()

    def write(pose: "Pose", prediction: "Prediction") -> None:
        if output:
            values = prediction.row()
            row = dict(zip(given, pose.given, strict=True)) | {own[name]: values.get(name) for name in names}
            output.add(row, pose, scored=prediction.pk is not None, is_lost=prediction.is_lost)
        number = next(numbers)
        if explainer and prediction.pk is not None:
            explainer.add(pose, number, prediction.interval, prediction.remarks)
        if report:
            report.series.add(pose, prediction)
        _show(prediction, options, number - earlier, scoring_setup.name_of_row(given, pose))

    try:
        with output or nullcontext():
            if options.shard:
                output.begin()  # one of many parts may have no poses
            for pose, prediction in _with_bar(predictions, options, earlier, scoring_setup.num_rows(options)):
                tally.add(pose, prediction)
                if not scoring_setup.is_ranking(options):
                    write(pose, prediction)
            for pose, prediction in tally.best:
                write(pose, prediction)
    except torch.OutOfMemoryError as error:
        log.error("error: the memory of the GPU is full: use a smaller --batch_size or --device cpu (%s)", error)
        return 2
    if tally.num_poses > 1:
        log.info("%s", tally.text(time.monotonic() - start))
    _close(options, output, explainer, report)
    is_empty_part = options.shard and not output.num_rows
    return 0 if tally.num_scored or (earlier and output.num_scored) or is_empty_part else 2


def _close(
    options: "argparse.Namespace",
    output: "ScoreFile | ScoreStream | None",
    explainer: "Explainer | None",
    report: "SeriesPage | None",
) -> None:
    """Finish what was written, and say where it is."""
    if options.output not in (None, STANDARD):
        log.info("%s in %s", counted(output.num_rows, "row"), options.output)
    if explainer:
        log.info("why these scores: %s", explainer.close())
    if report:
        log.info("the series: %s", report.close())


def _selftest(options: "argparse.Namespace") -> int:
    from src.scoring.selftest import Judge, run_selftest, selftest_table
    from src.system.terminal import show

    ensemble = _ensemble(options, _checkpoints(options))
    own = (options.protein_path, options.ligand_path[0]) if options.ligand_path else None

    def predict(protein: Path, ligand: Path) -> float:
        pk = next(ensemble.score(protein, ligand)).pk
        return float("nan") if pk is None else pk

    checks = run_selftest(Judge(ensemble.models, ensemble.graph_settings, ensemble.device), predict, own)
    show(selftest_table(checks))
    return 0 if all(check.passed for check in checks) else 1


def _checkpoints(options: "argparse.Namespace") -> list[Path]:
    from src.scoring.ensemble import find_checkpoints

    return find_checkpoints(options.checkpoint or [_default_checkpoint()])


def _ensemble(options: "argparse.Namespace", models: Sequence[Path]) -> "Ensemble":
    from src.scoring.ensemble import SYNTHETIC, load_ensemble

    ensemble = load_ensemble(models, options.device)
    if ensemble.trained_on_synthetic_data and not options.selftest:
        log.warning("%s", SYNTHETIC)
    return ensemble


def _show(prediction: "Prediction", options: "argparse.Namespace", number: int, row: str) -> None:
    """A sentence on the screen; of a long table only the first ones."""
    from src.scoring.prediction import HEADING, sentence
    from src.system.terminal import show

    if options.quiet or options.output == STANDARD or (options.output and number > NUM_SHOWN and not options.top):
        return
    if number == 1:
        show(HEADING)
    with_place = options.top or options.best_pose is not None
    show(sentence(prediction, per_model=options.per_model, with_place=with_place, row=row))
    if options.output and number == NUM_SHOWN and not options.top:
        log.info("the following rows are in %s alone", options.output)


def _with_bar(
    predictions: "Iterable[tuple[Pose, Prediction]]", options: "argparse.Namespace", earlier: int, total: int | None
) -> "Iterable[tuple[Pose, Prediction]]":
    """On a terminal a bar with poses per second, unless the sentences show how it goes."""
    from tqdm import tqdm

    is_silent = options.quiet or not (options.output or options.top)
    disable = True if is_silent else None
    return tqdm(predictions, total=total, initial=earlier, unit=" poses", leave=False, disable=disable)


def _default_checkpoint() -> Path:
    pretrained = CHECKPOINTS / "pretrained"
    return pretrained if any(pretrained.rglob("*.pth.tar")) else CHECKPOINTS / "model_best.pth.tar"


def _options(arguments: Sequence[str] | None) -> "argparse.Namespace":
    return read_options(arguments, __doc__)


if __name__ == "__main__":
    sys.exit(main())
