"""Train: CONFIG -> graphs -> split -> fit -> evaluate.

python main.py                    train with config.py, or go on where the last run stopped
python main.py --check-data       build the graphs, print what is used and what each split would leak, and stop
python main.py --evaluate         write the results of the best checkpoint again; no training
python main.py --plan             print what batches need, what fits and what to set, and stop
python main.py --set epochs=5     change a setting for this run
python main.py --fresh            start over; earlier checkpoints are moved into a subfolder
python main.py --set members=5    five networks, one after the other, and what they find together
torchrun main.py                  on several GPUs or computers: docs/clusters.md
"""

import os
import sys

# Of this folder config and src are loaded, with python -P too, and no other file: one of a library's name is not the
# library. What is imported before that is part of the interpreter.
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from config import CONFIG
from src import shut_out_foreign_modules

if __name__ in ("__main__", "__mp_main__"):  # the second in a worker process
    shut_out_foreign_modules()

from src.system.installation import installation_fault

if installation_fault():
    sys.exit(f"error: {installation_fault()}")

from src.run.training_options import read_options

if __name__ == "__main__":
    read_options(None, __doc__)  # --help and a misspelt option are answered before the seconds that imports take

import contextlib
import logging
import shlex
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while libraries are imported, some of which swallow Ctrl+C

from tqdm.contrib.logging import logging_redirect_tqdm

from src.checkpoint import BEST, load_checkpoint
from src.data.audit import attrition_text, audit, require_enough
from src.data.cache import other_caches
from src.data.dataset import Dataset, load_dataset
from src.data.demo import write_demo
from src.data_processing import DATA_PROCESSING_VERSION
from src.evaluation.findings import Findings, Split
from src.evaluation.joined_findings import join_findings
from src.hardware.device import choose_device
from src.hardware.memory_plan import plan_memory, plan_text, resolve_auto
from src.hardware.out_of_memory import is_out_of_memory
from src.optimization.progress import skipped_text
from src.pdbbind.folders import ComplexFiles
from src.run.joining import join_process
from src.run.member_runs import member_runs, set_members_aside
from src.run.results import RECORDED, Request, evaluate_checkpoint, results_text, settings_of_run, write_results
from src.run.run_record import lost_codes, stored_split
from src.run.trainer_setup import RunPlan, data_of_run, demo_folder, newest_of_run, num_processes, train, uses_demo
from src.settings import Settings, read_settings
from src.similarity.comparison import Similarity
from src.similarity.splits import (
    check_leakage,
    compare_complexes,
    every_split_text,
    judged_part,
    split_dataset,
    split_text,
)
from src.system.distributed import ALONE, RankLostError, World, join_world
from src.system.errors import UserError
from src.system.locks import in_turn, sole_use
from src.system.own_ranks import own_ranks
from src.system.stop_signals import EXIT_CODES, exit_code, signals_interrupt
from src.system.storage import prepare_folder
from src.system.terminal import let_go_of_output, prepare_terminal, show
from src.system.workers import require_main_guard
from src.training import TrainingError

ROOT = Path(__file__).resolve().parent
log = logging.getLogger("main")


class Ended(NamedTuple):
    """What a run leaves; no findings where it was stopped."""

    exit_code: int
    dataset: Dataset | None = None
    findings: Findings | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_options(arguments, __doc__)
    require_main_guard()
    prepare_terminal()
    try:
        with logging_redirect_tqdm(), signals_interrupt(), join_world() as world:
            if not world.is_main:
                return follow(world)
            settings = read_settings({**CONFIG, **dict(options.set)}, root=ROOT)
            with _own_folders(settings, trains=not (options.check_data or options.plan)):
                if options.evaluate:
                    return evaluate_again(settings, Request(_evaluate_command(), options.compare, options.casf))
                if options.check_data or options.plan:
                    return look(settings, world, plan=options.plan)
                return run_all(settings, world, fresh=options.fresh)
    except UserError as error:
        log.error("error: %s", error)
        return 2
    except (TrainingError, RankLostError) as error:
        log.error("training stopped: %s", error)
        return 1
    except KeyboardInterrupt as interrupt:
        log.error("stopped; the graphs and checkpoints written so far are kept. Go on with: %s", _this_command())
        return exit_code(interrupt)
    except Exception as error:  # the last resort; a bug keeps its trace
        if is_out_of_memory(error):
            log.error(
                "the memory is full: use message_passing = 'lean' or device = 'cpu', or start a new run with a lower "
                "batch_size and more gradient_accumulation_steps (%s)",
                error,
            )
        else:
            log.exception("a fault of the program; what was saved is kept. To go on: %s", _this_command())
        return 1
    finally:
        let_go_of_output()


def look(settings: Settings, world: World, *, plan: bool) -> int:
    """Print what is used of the data, or with `plan` what fits into memory; returns the exit code."""
    settings, _ = _with_demo_data(settings)
    dataset = _load(settings, world)
    if not plan:
        show(audit(dataset))
        if len(dataset.examples) > 1:
            show(every_split_text(settings, dataset))
        return 0 if dataset.examples else 2
    log.info("%s", audit(dataset))
    device = choose_device(settings.training.device)
    show(plan_text(plan_memory(settings, dataset.examples, device, world=world), settings, device))
    return 0


def run_all(settings: Settings, world: World = ALONE, *, fresh: bool = False) -> int:
    """The run, or all of an ensemble or cross-validation and what they find together; returns the exit code."""
    runs = member_runs(settings, ROOT)
    if len(runs) == 1:
        return run(settings, world, fresh=fresh).exit_code
    set_members_aside(settings, runs, fresh=fresh)
    ended = []
    for number, one in enumerate(runs, start=1):
        log.info("run %d of %d: %s", number, len(runs), Path(one.output.checkpoint_dir).name)
        with _own_folders(one, trains=True):
            ended.append(run(one, world))
        if ended[-1].exit_code:
            return ended[-1].exit_code
    evaluate_together(settings, ended)
    return 0


def run(settings: Settings, world: World = ALONE, *, fresh: bool = False) -> Ended:
    """Everything from the data to the results of one training, by the main rank."""
    device = choose_device(settings.training.device)
    newest = newest_of_run(settings, fresh=fresh)
    settings, synthetic = _with_demo_data(settings)
    dataset = _load(settings, world)
    log.info("%s", audit(dataset))
    require_enough(dataset.skipped, len(dataset.examples), settings.data.max_failed_fraction)
    dataset, codes = data_of_run(dataset, newest, settings.data.split)
    size = num_processes(settings, len(dataset.examples), device, newest[1] if newest else None)
    with own_ranks(world, size, [sys.executable, str(ROOT / "main.py")]) as join:
        whole, similarity = _split(settings, dataset, codes)
        split = dict(whole.codes)
        may_compile = settings.training.message_passing == "auto"
        earlier = newest[1]["config"] if newest else None
        settings = resolve_auto(settings, dataset.subset(split["train"]), device, earlier, world)
        world = join()
        agreed = world.from_main(RunPlan(settings, whole, synthetic, newest, dataset.lost, may_compile))
        trainer, stopped_by = train(agreed, dataset, world)
    if unused := skipped_text(trainer.progress):
        log.warning("%s", unused)
    if stopped_by:
        log.info("stopped by %s; nothing is lost. Go on with: %s", stopped_by.name, _this_command())
        return Ended(EXIT_CODES[stopped_by])
    if trainer.progress.epoch < settings.training.epochs:
        log.info("stopped early: no better validation RMSE in %d epochs", settings.training.early_stopping_patience)
    if settings.training.gaussian_process:
        join_process(_best(settings), settings, dataset, split, similarity)
    return Ended(0, dataset, evaluate(settings, dataset, whole, similarity, Request(_evaluate_command())))


def follow(world: World) -> int:
    """What every other rank does; returns the exit code."""
    while (plan := world.answer()) is not None:
        settings = plan.settings
        dataset = load_dataset(settings.data, settings.graph, settings.processing).without(plan.lost)
        with contextlib.suppress(TrainingError):  # the main rank says why
            train(plan, dataset, world)
    return 0


@contextlib.contextmanager
def _own_folders(settings: Settings, *, trains: bool) -> Iterator[None]:
    """The folders to write to are there, and those of a training are no other process's."""
    output = settings.output
    own = {"checkpoint_dir": Path(output.checkpoint_dir), "results_dir": Path(output.results_dir)} if trains else {}
    for folder in (Path(settings.processing.processed_data_dir), *own.values()):
        prepare_folder(folder)
    with sole_use(own):
        yield


def evaluate(settings: Settings, dataset: Dataset, split: Split, similarity: Similarity, request: Request) -> Findings:
    """Score the test set with the best model, write the results, and print them with the next command."""
    checkpoint = _best(settings)
    findings = evaluate_checkpoint(checkpoint, settings, dataset, split, similarity, request)
    _publish(settings, findings, dataset, checkpoint)
    return findings


def evaluate_again(settings: Settings, request: Request) -> int:
    """Write every number and page of the results again from the best checkpoints; returns the exit code."""
    runs, ended = member_runs(settings, ROOT), []
    for one in runs:
        checkpoint = _best(one)
        state = load_checkpoint(checkpoint, required=RECORDED)
        own, _ = _with_demo_data(settings_of_run(one, state, ROOT))
        dataset = load_dataset(own.data, own.graph, own.processing).without(lost_codes(state, checkpoint))
        parts = _split(own, dataset, stored_split(state, checkpoint))
        ended.append(Ended(0, dataset, evaluate(own, dataset, *parts, request)))
    if len(runs) > 1:
        evaluate_together(settings, ended)
    return 0


def evaluate_together(settings: Settings, runs: Sequence[Ended]) -> None:
    """Write and print what all members and folds find together."""
    folder = Path(settings.output.checkpoint_dir)
    findings = [one.findings for one in runs]
    whole = replace(findings[0].run, checkpoint=f"{len(runs)} models of {folder.name}", history=(), joined_with="")
    show(f"\n{len(runs)} runs together, the mean of those that share a test set:")
    _publish(settings, join_findings(findings, whole), runs[-1].dataset, folder)


def _publish(settings: Settings, findings: Findings, dataset: Dataset, models: Path) -> None:
    results = Path(settings.output.results_dir)
    write_results(results, findings)
    show(f"\n{results_text(findings)}\n")
    command = _predict_command(dataset.files[findings.judged.codes[0]], models)
    show(f"results are in {results}, to be read in {results / 'report.html'}. Score a pose with:\n  {command}")


def _best(settings: Settings) -> Path:
    return Path(settings.output.checkpoint_dir) / BEST


def _split(settings: Settings, dataset: Dataset, codes: dict[str, list[str]] | None = None) -> tuple[Split, Similarity]:
    """The split that the settings ask for, or that of an earlier run, with what it leaks and what that was found by."""
    similarity = compare_complexes(dataset, settings.processing)
    codes = codes or split_dataset(dataset, settings.data, settings.training.seed, similarity)
    leakage = check_leakage(dataset, codes, similarity, Path(settings.processing.processed_data_dir))
    log.info("%s", split_text(codes, settings.data, leakage, judged_part(dataset, codes)))
    return Split(settings.data.split, codes, leakage), similarity


def _with_demo_data(settings: Settings) -> tuple[Settings, bool]:
    if settings.data.dataset_path is not None:
        return settings, uses_demo(settings)
    folder = demo_folder(settings)
    log.info("dataset_path is not set: using the built-in demo set, synthetic complexes in %s", folder)
    with in_turn(folder.parent):
        index_file = write_demo(folder)
    data = replace(settings.data, dataset_path=str(folder), index_file=str(index_file))
    return replace(settings, data=data), True


def _load(settings: Settings, world: World) -> Dataset:
    dataset = load_dataset(settings.data, settings.graph, settings.processing, world)
    _log_other_caches(settings, dataset)
    if lost := attrition_text(dataset.skipped, len(dataset.examples)):
        log.warning("%s", lost)
    return dataset


def _log_other_caches(settings: Settings, dataset: Dataset) -> None:
    log.info("data processing version %s, graphs in %s", DATA_PROCESSING_VERSION, dataset.cache.folder)
    for folder, size, command in other_caches(Path(settings.processing.processed_data_dir), dataset.cache.folder):
        log.warning(
            "%s holds %.1f MB of graphs of other settings or versions; if no run needs them, delete with: %s",
            folder,
            size / 1e6,
            command,
        )


def _predict_command(files: ComplexFiles, checkpoint: Path) -> str:
    """A command to copy: it scores a complex that the model has not been trained on."""
    parts = ["--protein_path", files.protein or files.pocket, "--ligand_path", files.ligands[0]]
    return shlex.join(["python", *map(_short, [ROOT / "predict.py", *parts, "--checkpoint", checkpoint])])


def _short(path: str | Path) -> str:
    path = Path(path)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _evaluate_command() -> str:
    """What writes the same results again: this command with --evaluate and without what starts a training."""
    words = [word for word in sys.argv[1:] if word not in ("--fresh", "--evaluate")]
    return shlex.join(["python", "main.py", "--evaluate", *words])


def _this_command() -> str:
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "the same torchrun command"
    return shlex.join(["python", *(word for word in sys.argv if word != "--fresh")])


if __name__ == "__main__":
    sys.exit(main())
