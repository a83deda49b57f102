"""The options of predict.py -> the poses to score, the file that their rows go to, and what explains their scores."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from src.chemistry.atoms import STANDARD_INPUT
from src.chemistry.ligands import Ligand, ligand_of
from src.chemistry.structure_ligands import COMPLEX_ENDINGS, structure_kind
from src.gaussian_process.joined_model import JoinedModel
from src.pdbbind.affinity import PDBbindError
from src.pdbbind.user_table import label_reader
from src.scoring.best_poses import BestPoses
from src.scoring.ensemble import SYNTHETIC, Ensemble
from src.scoring.poses import (
    COMPLEX_COLUMNS,
    SMILES_COLUMN,
    Pose,
    PoseError,
    find_ligands,
    iter_complexes,
    iter_poses,
    read_pairs,
    require_protein,
    table_rows,
)
from src.scoring.score_files import ScoreFile, ScoreStream, is_unfinished, molecules_path, require_apart, signature
from src.scoring.screening import ScreeningOptions, Tally
from src.scoring.smiles_files import (
    SMILES_COLUMNS,
    TABLE_ENDINGS,
    is_smiles_file,
    read_smiles_file,
    read_templates,
)
from src.system.storage import StorageError, prepare_folder

if TYPE_CHECKING:
    from src.explanation.explainer import Explainer
    from src.explanation.series_page import SeriesPage
    from src.scoring.conditioning import Known

log = logging.getLogger(__name__)

STANDARD_OUTPUT = STANDARD_INPUT
PK_COLUMN, OWN_COLUMN = "pK", "dG_kcal_mol_298K"  # of a table of scores; the second has no other source

ROW_NAMES = ("code", "name", "title", "id", "compound")  # columns that name a row


def find_poses(options: Namespace) -> tuple[tuple[str, ...], Iterator[Pose], list[Path]]:
    """The user's columns, the poses, and the files that they come from.

    Raises:
        UserError: what should be scored cannot be found, or the output is part of it.
    """
    output = None if options.output == STANDARD_OUTPUT else options.output
    if options.template or any(map(is_smiles_file, options.ligand_path or [])):
        return _find_drawn(options, output)
    if options.pairs:
        table = read_pairs(options.pairs)
        if output:
            require_apart(output, chain([options.pairs], table.files()))
        return table.columns, table.poses(), [options.pairs]
    # A screening of the folder that its output lies in goes on with the same ligands.
    leave_out = output if is_unfinished(output) else None
    if options.complex_path:
        inputs = find_ligands(options.complex_path, leave_out=leave_out, endings=COMPLEX_ENDINGS)
        poses = iter_complexes(inputs, (), options.smiles, options.ligand_residue)
    else:
        require_protein(options.protein_path)
        ligands = find_ligands(options.ligand_path, leave_out=leave_out)
        if options.smiles and not any(map(structure_kind, ligands)):
            raise PoseError("--smiles states the bond orders of PDB and PDBQT files; the ligands given have their own")
        inputs = [options.protein_path, *ligands]
        poses = iter_poses(options.protein_path, ligands, smiles=options.smiles)
    if output:
        require_apart(output, inputs)
    return (), poses, inputs


def name_of_row(columns: Sequence[str], pose: Pose) -> str:
    """What a table of pairs calls a pose; '' where no column does."""
    cells = dict(zip((column.lower() for column in columns), pose.given, strict=True)) if pose.given else {}
    return next((cells[name].strip() for name in ROW_NAMES if cells.get(name)), "")


def num_rows(options: Namespace) -> int | None:
    """Of the table of pairs, each with one pose as a rule; None where the number of poses is not known."""
    return None if options.shard or not options.pairs else sum(1 for _ in table_rows(options.pairs)) - 1


def has_structures(options: Namespace, columns: Sequence[str], inputs: Iterable[Path]) -> bool:
    """Whether ligands may come without bond orders, so that rows say where these were found.

    Args:
        columns: of the table of pairs.
    """
    of_table = {column.lower() for column in columns} & {*COMPLEX_COLUMNS, SMILES_COLUMN}
    if options.pairs or options.complex_path:
        return bool(options.complex_path or of_table)
    return not options.template and any(map(structure_kind, list(inputs)[1:]))


@contextlib.contextmanager
def conditioned_models(options: Namespace, checkpoints: list[Path]) -> Iterator[tuple[list[Path], list[Known]]]:
    """The files of the models to score with, those that are given or one of them conditioned on measured ligands, and
    these ligands.

    Raises:
        UserError: the measured ligands cannot be used, or the file to keep is there already.
    """
    if not options.known:
        yield checkpoints, []
        return
    from src.scoring.conditioning import condition_models

    with tempfile.TemporaryDirectory() as folder:
        path = options.save_model or Path(folder) / "conditioned.pth.tar"
        if options.save_model:
            require_apart(path, [options.known, *checkpoints])
            if path.exists() and not options.overwrite:
                raise StorageError(f"{path} exists: give another file to --save_model, or add --overwrite")
            prepare_folder(path.parent)
        known = condition_models(options.known, checkpoints, path, options.device, options.num_workers)
        if options.save_model:
            log.info("the conditioned model is in %s; score with --checkpoint %s", path, path)
        yield [path], known


def _find_drawn(options: Namespace, output: Path | None) -> tuple[tuple[str, ...], Iterator[Pose], list[Path]]:
    """Molecules without a pose, which are modelled on templates."""
    path = options.ligand_path[0]
    is_table = path.name.lower().endswith(TABLE_ENDINGS) and path.is_file()
    if is_table and not {*SMILES_COLUMNS} & {name.lower() for name in next(table_rows(path), (0, ()))[1]}:
        raise PoseError(
            f"{path}: has no column smiles; a table of poses, with the columns protein_path and ligand_path, is given "
            "as --pairs"
        )
    if not options.template:
        raise PoseError(
            f"{path}: has SMILES and no poses: add --template with the crystal ligand of a similar compound, in the "
            "frame of the protein, or dock them and give the poses as SDF"
        )
    if len(options.ligand_path) > 1 or not is_smiles_file(path):
        raise PoseError(f"{path}: --template goes with one file of SMILES (.smi or .csv); poses are scored without it")
    require_protein(options.protein_path)
    drawn = read_smiles_file(options.protein_path, path)
    inputs = [options.protein_path, path, *options.template]
    if output:
        require_apart(output, inputs)
        require_apart(molecules_path(output), inputs)
    return drawn.columns, drawn.poses(), inputs


def is_ranking(options: Namespace) -> bool:
    """Whether no row is known before the last pose is scored."""
    return bool(options.top) or options.best_pose is not None


def starts_anew(options: Namespace) -> bool:
    """Whether a scoring that was stopped begins anew: a ranking is no part of another one, nor is a page of a part."""
    return is_ranking(options) or bool(options.report)


def screening_options(options: Namespace) -> ScreeningOptions:
    """
    Raises:
        LigandError: a template is missing, of another kind or empty.
    """
    how = {
        "one_receptor": not (options.pairs or options.complex_path),
        "templates": read_templates(options.template or ()),
    }
    return ScreeningOptions(options.batch_size, options.num_workers, options.jitter, **how)


def open_tally(options: Namespace) -> Tally:
    """What counts the poses and keeps those that are asked for."""
    if options.best_pose is None:
        return Tally(options.top or 0)
    keeps_molecules = bool(options.explain or options.report or options.template or has_molecules(options))
    return Tally(options.top or 0, BestPoses(options.best_pose, keeps_molecules=keeps_molecules))


def has_molecules(options: Namespace) -> bool:
    """Whether the output is an SDF."""
    return options.output is not None and options.output.name.removesuffix(".gz").endswith(".sdf")


def open_output(
    options: Namespace, columns: Sequence[str], checkpoints: Iterable[Path], inputs: Iterable[Path]
) -> ScoreFile | ScoreStream | None:
    """Where the rows go, None for the screen alone.

    Raises:
        StorageError: there is such a file already, of other work or finished.
    """
    if options.output is None:
        return None
    if options.output == STANDARD_OUTPUT:
        return ScoreStream(columns)
    work = {
        "input": signature(inputs),
        "checkpoint": signature(checkpoints, content=True),
        **{name: getattr(options, name) for name in ("jitter", "per_model", "top", "best_pose")},
        "shard": str(options.shard),
        **{name: getattr(options, name) for name in ("smiles", "ligand_residue") if getattr(options, name)},
    }
    prepare_folder(options.output.parent)
    how = {"overwrite": options.overwrite, "goes_on": not starts_anew(options)}
    if options.template and not has_molecules(options):
        how["molecules"] = molecules_path(options.output)
    return ScoreFile(options.output, work, columns, **how)


def open_explainer(
    options: Namespace, checkpoints: Sequence[Path], ensemble: Ensemble, *, goes_on: bool
) -> Explainer | None:
    """What writes the folder of --explain.

    Raises:
        StorageError: there is something in it already.
    """
    from src.explanation.explainer import Explainer, PoseAttributions  # only where it is asked for

    folder = options.explain
    if folder is None:
        return None
    if not (goes_on or options.overwrite) and folder.is_dir() and any(folder.iterdir()):
        raise StorageError(f"{folder} is not empty: give another folder to --explain, or add --overwrite")
    prepare_folder(folder)
    model = ensemble.models, ensemble.graph_settings, ensemble.device
    attributions = PoseAttributions(*model, _templates(options))
    replaces = options.overwrite and not goes_on
    return Explainer(folder, attributions, model_name=_model_name(checkpoints), replaces=replaces)


def open_report(
    options: Namespace,
    checkpoints: Sequence[Path],
    ensemble: Ensemble,
    columns: Sequence[str],
    inputs: Iterable[Path],
    known: Sequence[Known],
) -> SeriesPage | None:
    """What collects the ligands for the page of --report.

    Args:
        columns: of the table of pairs, or of the one with SMILES.

    Raises:
        StorageError: there is such a file already, or it is an input or a page of --explain.
    """
    from src.explanation.explainer import PoseAttributions  # only where it is asked for
    from src.explanation.series import Series
    from src.explanation.series_page import SeriesPage

    path = options.report
    if path is None:
        return None
    require_apart(path, [*inputs, *checkpoints, *([options.known] if options.known else [])])
    if options.explain and path.resolve() == (options.explain / "index.html").resolve():
        raise StorageError(f"{path} is a page of --explain: give another file to --report")
    if path.exists() and not options.overwrite:
        raise StorageError(f"{path} exists: give another file to --report, or add --overwrite")
    prepare_folder(path.parent)
    model = ensemble.models, ensemble.graph_settings, ensemble.device
    attributions = PoseAttributions(*model, _templates(options))
    label = _label_reader(options.pairs or options.ligand_path[0], columns) if columns else None
    joined = [one for one in ensemble.models if isinstance(one, JoinedModel) and one.known]
    told = {name for one in joined for name in one.known.codes}
    series = Series(attributions, label=label, known=known, told=told, reference=options.reference)
    name = f"{_model_name(checkpoints)}{f', mean of {len(ensemble.models)} models' * (len(ensemble.models) > 1)}"
    name += f", conditioned on {len(told)} measured ligands" * bool(told)
    return SeriesPage(path, series, name, [SYNTHETIC] * ensemble.trained_on_synthetic_data)


def _label_reader(table: Path, columns: Sequence[str]) -> Callable[[Sequence[str]], tuple[float, int]] | None:
    """What reads measured values from rows of the table; None where it has none."""
    if OWN_COLUMN in columns and f"predicted_{PK_COLUMN}" not in columns:
        log.info("%s: its %s is that of an earlier scoring, and no measured value", table, PK_COLUMN)
        return None
    try:
        return label_reader(table, columns)
    except PDBbindError as error:
        log.info("no measured values for the page: %s", error)
        return None


def _templates(options: Namespace) -> list[Ligand]:
    found = map(ligand_of, read_templates(options.template or ()))
    return [one for one in found if isinstance(one, Ligand)]


def _model_name(checkpoints: Sequence[Path]) -> str:
    # Models of several runs have the same file name.
    return ", ".join(path.name if len(checkpoints) == 1 else f"{path.parent.name}/{path.name}" for path in checkpoints)
