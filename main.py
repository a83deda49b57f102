"""Train: CONFIG -> graphs -> split -> fit -> evaluate.

python main.py                    train with config.py, or go on where the last run stopped
python main.py --check-data       build the graphs, print what is used and what is not, and stop
python main.py --plan             print what batches need, what fits and what to set, and stop
python main.py --set epochs=5     change a setting for this run
python main.py --fresh            start over; earlier checkpoints are moved into a subfolder
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import logging
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

# Before torch: how long its threads spin while they wait for each other. Without spinning, short operations take three
# times as long; spinning for milliseconds, which is the default, loses up to 50 times beside another program.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from config import CONFIG
from src.affinity import PDBbindError
from src.cache import other_caches
from src.checkpoint import CheckpointError, newest_checkpoint
from src.compilation import fastest_kernels
from src.data_processing import DATA_PROCESSING_VERSION
from src.dataset import (
    Dataset,
    DatasetError,
    Example,
    audit,
    batch_budget,
    batch_counts,
    collate,
    epoch_batches,
    graph_sizes,
    in_order,
    load_dataset,
    make_loader,
    measured_pk,
    split_dataset,
    warn_of_oversized,
)
from src.demo import DemoError, write_demo
from src.evaluation import baseline_predictions, metrics_with_intervals, results_table
from src.experiment import check_same_run, run_facts, set_aside
from src.graph import Batch
from src.inference import DeviceError, choose_device, predict_batches
from src.layouts import ComplexFiles
from src.memory_plan import plan_memory, plan_text, resolve_auto
from src.message_passing import EAGER
from src.model import build_model
from src.out_of_memory import parts_within
from src.prediction import load_scorer
from src.settings import Settings, SettingsError, read_settings
from src.stop_signals import EXIT_CODES
from src.storage import StorageError, prepare_folder, write_csv, write_json
from src.training import Trainer, TrainingError
from src.workers import WorkerStartError

ROOT = Path(__file__).resolve().parent
log = logging.getLogger("main")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a terminal without Å must not end a run
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        with logging_redirect_tqdm():
            settings = read_settings({**CONFIG, **dict(options.set)}, root=ROOT)
            return run(settings, check_data=options.check_data, plan=options.plan, fresh=options.fresh)
    except (
        SettingsError,
        PDBbindError,
        DatasetError,
        CheckpointError,
        StorageError,
        DeviceError,
        DemoError,
        WorkerStartError,
    ) as error:
        log.error("error: %s", error)
        return 2
    except TrainingError as error:
        log.error("training stopped: %s", error)
        return 1
    except torch.OutOfMemoryError as error:
        log.error(
            "the memory is full: use message_passing = 'lean' or device = 'cpu', or start a new run with a lower "
            "batch_size and more gradient_accumulation_steps (%s)",
            error,
        )
        return 1
    except KeyboardInterrupt:
        log.error("stopped; the graphs and checkpoints written so far are kept. Go on with: %s", _this_command())
        return 130


def run(settings: Settings, *, check_data: bool = False, plan: bool = False, fresh: bool = False) -> int:
    """Everything from the data to the results; returns the exit code."""
    device = choose_device(settings.training.device)
    written = [settings.processing.processed_data_dir]
    if not (check_data or plan):
        written += [settings.output.checkpoint_dir, settings.output.results_dir]
    for folder in written:
        prepare_folder(Path(folder))
    settings, synthetic = _with_demo_data(settings)
    dataset = load_dataset(settings.data, settings.graph, settings.processing)
    _log_other_caches(settings, dataset)
    if check_data:
        print(audit(dataset))
        return 0 if dataset.examples else 2
    log.info("%s", audit(dataset))
    if plan:
        print(plan_text(plan_memory(settings, dataset.examples, device), settings, device))
        return 0

    split = split_dataset(dataset, settings.data, settings.training.seed)
    sizes = ", ".join(f"{len(codes)} {part}" for part, codes in split.items())
    log.info("random split: %s (it leaks: similar complexes stand on both sides, new targets will do worse)", sizes)
    newest, wanted = _newest_checkpoint(settings, fresh=fresh), settings.training.message_passing
    settings = resolve_auto(settings, dataset.subset(split["train"]), device, newest[1]["config"] if newest else None)
    trainer = _make_trainer(settings, dataset, split, device, synthetic=synthetic)
    if newest:
        _resume(trainer, *newest)
    if wanted == "auto" and not trainer.finished:
        _choose_kernels(trainer, dataset.subset(split["train"]), newest[1]["kernels"] if newest else None)
    write_json(Path(settings.output.results_dir) / "run.json", trainer.facts)

    signal = trainer.fit(*_loaders(settings, dataset, split, trainer.device))
    if signal:
        log.info("stopped by %s; nothing is lost. Go on with: %s", signal.name, _this_command())
        return EXIT_CODES[signal]
    if trainer.progress.epoch < settings.training.epochs:
        log.info("stopped early: no better validation RMSE in %d epochs", settings.training.early_stopping_patience)
    evaluate(settings, dataset, split)
    return 0


def evaluate(settings: Settings, dataset: Dataset, split: dict[str, list[str]]) -> None:
    """Score the test set with the best model, beside simple baselines, and print the next command."""
    checkpoint = Path(settings.output.checkpoint_dir) / "model_best.pth.tar"
    scorer = load_scorer(checkpoint, settings.training.device)
    part = "test" if dataset.judged(split["test"]) else "validation"
    train, test = dataset.judged(split["train"]), dataset.judged(split[part])
    batches = in_order(test, settings.training.batch_size, batch_budget(settings.training))
    predicted, measured = predict_batches(scorer.model, batches, scorer.device)
    baselines = baseline_predictions([e.graph for e in train], measured_pk(train), [e.graph for e in test])
    table = {
        name: metrics_with_intervals(values, measured)
        for name, values in {"this model": predicted, **baselines}.items()
    }
    results = Path(settings.output.results_dir)
    write_csv(
        results / f"{part}_predictions.csv",
        ["code", "measured_pK", "predicted_pK"],
        [
            [e.graph.code, round(float(y), 4), round(float(p), 4)]
            for e, y, p in zip(test, measured, predicted, strict=True)
        ],
    )
    numbers = {name: {metric: i.as_dict() for metric, i in row.items()} for name, row in table.items()}
    write_json(results / "metrics.json", {"part": part, "complexes": len(test), **numbers})
    print(f"\n{part} set, {len(test)} complexes, 95% bootstrap intervals:\n{results_table(table)}\n")
    command = _predict_command(dataset.files[test[0].graph.code], checkpoint)
    print(f"results are in {results}. Score a pose with:\n  {command}")


def _make_trainer(
    settings: Settings, dataset: Dataset, split: dict[str, list[str]], device: torch.device, *, synthetic: bool
) -> Trainer:
    training, budget = settings.training, batch_budget(settings.training)
    torch.manual_seed(training.seed)
    warn_of_oversized(dataset.examples, budget)
    sizes = graph_sizes(dataset.subset(split["train"]))
    model = build_model(settings.model)
    model.representation.message_passing = training.message_passing
    model.fit_label_scale(in_order(dataset.judged(split["train"]), training.batch_size, budget))
    trainer = Trainer(
        model,
        training,
        settings.output,
        device=device,
        num_batches=batch_counts(sizes, training.batch_size, budget, seed=training.seed, epochs=training.epochs),
        facts=run_facts(settings, split, dataset_fingerprint=dataset.fingerprint(), synthetic=synthetic),
    )
    size = sum(parameter.numel() for parameter in model.parameters())
    precision = str(trainer.precision).removeprefix("torch.")
    log.info("ViSNet with %s weights on %s in %s", f"{size:,}", device, precision)
    return trainer


def _newest_checkpoint(settings: Settings, *, fresh: bool) -> tuple[Path, dict] | None:
    folder = Path(settings.output.checkpoint_dir)
    if fresh and (moved := set_aside(folder)):
        log.info("earlier checkpoints are now in %s", moved)
    return newest_checkpoint(folder)


def _resume(trainer: Trainer, path: Path, state: dict) -> None:
    check_same_run(trainer.facts, state, path)
    trainer.load_state_dict(state)
    progress = trainer.progress
    now = trainer.facts["config"]
    if any(state["config"][key] != now[key] for key in ("device", "message_passing")):
        progress.edge_limit = None  # what did not fit there may fit here
    if trainer.finished:
        log.info("%s: this run is finished after %d epochs", path, progress.epoch)
    else:
        log.info("going on from %s: epoch %d, batch %d", path, progress.epoch + 1, progress.next_batch + 1)


def _choose_kernels(trainer: Trainer, train: Sequence[Example], earlier: str | None) -> None:
    """Compile the message passing of a long training; a run that goes on keeps what it had, as the digits differ."""
    if earlier == "plain":
        return
    settings, limit = trainer.settings, trainer.progress.edge_limit
    batches = epoch_batches(
        graph_sizes(train), settings.batch_size, batch_budget(settings), seed=settings.seed, epoch=0
    )
    tried = [collate([train[number] for number in numbers]) for numbers in (batches[0], batches[len(batches) // 2])]
    kernels = fastest_kernels(
        trainer.model,
        [parts_within(batch, limit)[0] for batch in tried],
        num_steps=sum(trainer.num_batches) if earlier is None else None,
        device=trainer.device,
        precision=trainer.precision,
    )
    trainer.model.representation.kernels = kernels
    trainer.facts["kernels"] = "plain" if kernels is EAGER else "compiled"


def _loaders(settings: Settings, dataset: Dataset, split: dict[str, list[str]], device: torch.device) -> tuple:
    train, training = dataset.subset(split["train"]), settings.training
    sizes, budget = graph_sizes(train), batch_budget(training)

    def train_batches(epoch: int, first_batch: int) -> Iterable[Batch]:
        batches = epoch_batches(sizes, training.batch_size, budget, seed=training.seed, epoch=epoch)
        return make_loader(
            train,
            batches[first_batch:],
            num_workers=training.loader_num_workers,
            pin_memory=device.type == "cuda",
        )

    return train_batches, in_order(dataset.judged(split["validation"]), training.batch_size, budget)


def _with_demo_data(settings: Settings) -> tuple[Settings, bool]:
    if settings.data.dataset_path is not None:
        return settings, False
    folder = Path(settings.processing.processed_data_dir) / "demo_set"
    log.info("dataset_path is not set: using the built-in demo set, synthetic complexes in %s", folder)
    index_file = write_demo(folder)
    data = dataclasses.replace(settings.data, dataset_path=str(folder), index_file=str(index_file))
    return dataclasses.replace(settings, data=data), True


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


def _this_command() -> str:
    return shlex.join(["python", *(word for word in sys.argv if word != "--fresh")])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check-data", action="store_true", help="build the graphs, print the audit and stop")
    parser.add_argument("--plan", action="store_true", help="print what batches need and what fits, and stop")
    parser.add_argument("--fresh", action="store_true", help="start over; earlier checkpoints are moved, not deleted")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_assignment,
        metavar="KEY=VALUE",
        help="change a setting of config.py",
    )
    return parser.parse_args(arguments)


def _assignment(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: write KEY=VALUE, such as epochs=5")
    try:
        return key.strip(), ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key.strip(), value  # a bare word is a text


if __name__ == "__main__":
    sys.exit(main())
