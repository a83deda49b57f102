"""The words of a command of predict.py -> its options; nothing is imported here that would let --help wait."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src.system.command_line import Parser

if TYPE_CHECKING:
    from src.scoring.shards import Shard

STANDARD = Path("-")  # standard input or output
ENDINGS = (".csv", ".csv.gz", ".json", ".json.gz", ".sdf", ".sdf.gz")


def read_options(arguments: Sequence[str] | None, description: str) -> argparse.Namespace:
    """The options of a command; exits with code 2 and a sentence where they do not go together.

    Args:
        arguments: words of the command; None for those of this process.
        description: what --help says first.
    """
    parser = _parser(description)
    options = parser.parse_args(arguments)
    if options.template and not options.ligand_path:
        parser.error("--template goes with --ligand_path, a file of SMILES")
    if options.selftest and (options.pairs or options.explain or options.output or options.report):
        parser.error("--selftest scores nothing: --pairs, --explain, --output and --report do not go with it")
    if options.reference is not None and not options.report:
        parser.error("--reference goes with --report")
    is_given = options.pairs or options.protein_path or options.ligand_path or options.complex_path
    only_saves = options.save_model and not is_given
    if options.save_model and not options.known:
        parser.error("--save_model goes with --known")
    if options.selftest and options.known:
        parser.error("--selftest scores nothing: save the model with --save_model, and give it as --checkpoint")
    if options.shard or options.merge:
        ranks = options.top or options.best_pose is not None
        if options.output in (None, STANDARD) or ranks or options.explain or options.selftest:
            parser.error("--shard and --merge need an --output, and no --top, --best_pose, --explain or --selftest")
        options.output = options.output if options.merge else options.shard.path(options.output)
    ways = bool(options.pairs), bool(options.protein_path or options.ligand_path), bool(options.complex_path)
    if not (options.selftest or only_saves or options.merge) and sum(ways) != 1:
        parser.error("give either --protein_path and --ligand_path, or --complex_path, or --pairs")
    if options.complex_path and options.selftest:
        parser.error("--selftest takes --protein_path and --ligand_path")
    if STANDARD in (options.complex_path or []):
        parser.error("--complex_path takes files and folders, not standard input")
    if options.ligand_residue and not options.complex_path:
        parser.error("--ligand_residue goes with --complex_path; in a table of --pairs it is a column")
    if options.smiles and not (options.complex_path or options.ligand_path):
        parser.error("--smiles goes with --complex_path or --ligand_path; in a table of --pairs it is a column")
    if not options.pairs and bool(options.protein_path) != bool(options.ligand_path):
        parser.error("--protein_path and --ligand_path go together")
    return options


def _parser(description: str) -> argparse.ArgumentParser:
    parser = Parser(description)
    _add_what_and_how(parser)
    _add_where_and_how_fast(parser)
    return parser


def _add_what_and_how(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what to score")
    what.add_argument("--protein_path", type=_path, help=".pdb, .ent or .cif, also .gz")
    what.add_argument(
        "--ligand_path",
        type=_path,
        nargs="+",
        help="one or more of .sdf, .mol, .mol2 or .pdbqt with poses, also .gz, folders, or - for standard input",
    )
    what.add_argument(
        "--complex_path",
        type=_path,
        nargs="+",
        help="instead of the two: .pdb, .ent or .cif files with the ligand inside, also .gz, or folders of such",
    )
    what.add_argument(
        "--ligand_residue",
        metavar="CHAIN:NAME:NUMBER",
        default="",
        help="which molecule of a complex is the ligand, or a part of that such as LIG (default: the only one)",
    )
    what.add_argument(
        "--smiles",
        default="",
        help="the ligand of complexes, .pdb and .pdbqt, as SMILES or an SDF: bond orders that these files do not state",
    )
    what.add_argument(
        "--pairs",
        type=_path,
        metavar="CSV",
        help="instead: a table of protein_path and ligand_path, or of complex_path; smiles and ligand_residue as above",
    )
    what.add_argument(
        "--template",
        type=_path,
        nargs="+",
        metavar="SDF",
        help="crystal ligands in the frame of the protein, on which the molecules of one .smi, or .csv with a column "
        "smiles, as --ligand_path are modelled",
    )
    how = parser.add_argument_group("with which model")
    how.add_argument(
        "--checkpoint",
        type=_path,
        nargs="+",
        help="a file, or several or a folder for their mean (default: checkpoints/pretrained, else the model that was "
        "trained last)",
    )
    how.add_argument(
        "--known",
        type=_path,
        metavar="CSV",
        help="measured ligands of your targets, which every score is conditioned on: a table of protein_path, "
        "ligand_path and pK",
    )
    how.add_argument("--save_model", type=_model, metavar="FILE", help="keep the models conditioned on --known")
    how.add_argument("--per_model", action="store_true", help="a column with the pK of each of several models")
    how.add_argument("--selftest", action="store_true", help="check the model on this machine; scores nothing")
    how.add_argument("--jitter", type=_copies, metavar="N", help="spread of pK over N copies with 0.1 Å noise")


def _add_where_and_how_fast(parser: argparse.ArgumentParser) -> None:
    where = parser.add_argument_group("where to")
    where.add_argument("--output", type=_table, help=f"a file that ends in {', '.join(ENDINGS)}, or - for CSV")
    where.add_argument("--explain", type=_path, metavar="FOLDER", help="what each atom and residue adds to the pK")
    where.add_argument("--report", type=_page, metavar="HTML", help="a page of a series of ligands of one target")
    where.add_argument("--reference", metavar="NAME", help="ligand that --report compares all others with")
    where.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    where.add_argument("--top", type=_count, metavar="N", help="only the N highest pK, the highest first")
    where.add_argument(
        "--best_pose",
        nargs="?",
        const="",
        metavar="PROPERTY",
        help="one row for each ligand, its pose with the highest pK; poses of one title, or with one value of an SDF "
        "property, are of one ligand",
    )
    where.add_argument("--quiet", action="store_true", help="nothing on the screen but errors")
    many = parser.add_argument_group("with many jobs")
    many.add_argument("--shard", type=_shard, metavar="I/N", help="only part I of N, into a file beside --output")
    many.add_argument("--merge", action="store_true", help="put the N files into --output; scores nothing")
    speed = parser.add_argument_group("how fast")
    speed.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    speed.add_argument("--batch_size", type=_count, help="poses scored at once (default: 8 on a CPU, 64 on a GPU)")
    speed.add_argument("--num_workers", type=_number, help="processes, 0 for none (default: one a core)")


def _number(text: str, least: int = 0) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from {least}")
    return int(text)


def _shard(text: str) -> Shard:
    from src.scoring.shards import Shard

    try:
        return Shard.read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    return _number(text, 1)


def _copies(text: str) -> int:
    return _number(text, 2)


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))  # a shell leaves the ~ of --output=~/scores.csv to the program


def _model(text: str) -> Path:
    return _ending(text, ".pth.tar")


def _page(text: str) -> Path:
    return _ending(text, ".html")


def _ending(text: str, ending: str) -> Path:
    if not text.endswith(ending):
        raise argparse.ArgumentTypeError(f"{text!r} must end in {ending}")
    return _path(text)


def _table(text: str) -> Path:
    if text != "-" and not text.endswith(ENDINGS):
        raise argparse.ArgumentTypeError(f"{text!r} must end in {', '.join(ENDINGS)}, or be - for CSV")
    return _path(text)
