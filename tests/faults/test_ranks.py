"""Several ranks that train together, and what befalls one of them: all do the same; runs go on with any number."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from src.checkpoint import load_checkpoint, newest_checkpoint
from src.data import cache
from src.data.dataset import load_dataset
from src.graph import Batch
from src.hardware import memory_plan
from src.optimization import saving
from src.pdbbind.folders import ComplexFiles
from src.settings import Settings
from src.system.distributed import ALONE, RankLostError, World
from src.training import Trainer, TrainingError
from tests.complexes import small_settings, write_dataset
from tests.ranks import BATCHES, EXAMPLES, ranked_trainer, run_ranks, shares, validation, values, weights_of
from tests.training_runs import assert_same

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX processes and signals")

CODES = [example.graph.code for example in EXAMPLES]


def fit(trainer: Trainer, world: World, *, double: bool = False) -> signal.Signals | None:
    return trainer.fit(shares(world, double=double), validation(world, double=double))


def losses(world: World, folder: Path, *, double: bool, num_epochs: int, **changes: object) -> tuple:
    """RMSE so far in the epoch after each step, weights at the end, and the rows of the history."""
    trainer = ranked_trainer(folder, world, double=double, epochs=num_epochs, **changes)
    seen, train_window = [], trainer._train_window

    def watched(window: list[Batch]) -> None:
        train_window(window)
        seen.append(trainer.progress.train_rmse)

    trainer._train_window = watched
    assert fit(trainer, world, double=double) is None
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in trainer.progress.history]
    return seen, weights_of(trainer), rows


@pytest.mark.fault("L4", "L5")
@pytest.mark.parametrize(("double", "size", "accumulation"), [(True, 2, 1), (True, 4, 2), (False, 2, 1)])
def test_any_number_of_ranks_has_the_same_losses(tmp_path: Path, double: bool, size: int, accumulation: int) -> None:
    options = {"double": double, "num_epochs": 7, "gradient_accumulation_steps": accumulation}
    wanted, weights, rows = losses(ALONE, tmp_path / "alone", **options)
    assert len(wanted) == 7 * math.ceil(BATCHES / accumulation)
    found = values(run_ranks(size, tmp_path / "ranks", losses, tmp_path / "ranks", **options))
    for seen, ours, theirs in found:
        assert seen[:20] == pytest.approx(wanted[:20], rel=1e-9 if double else 1e-6)
        assert_same(ours, found[0][1])
        assert [row["step"] for row in theirs] == [row["step"] for row in rows]
        for key in ("validation_rmse", "learning_rate", "train_rmse"):
            assert [row[key] for row in theirs] == pytest.approx([row[key] for row in rows], rel=1e-3)
    if double:
        for name, value in weights.items():
            torch.testing.assert_close(found[0][1][name], value, rtol=1e-7, atol=1e-9)


def test_the_ranking_loss_compares_pairs_across_ranks(tmp_path: Path) -> None:
    options = {"double": True, "num_epochs": 1, "ranking_weight": 2.0}
    _, weights, _ = losses(ALONE, tmp_path / "alone", **options)
    _, without, _ = losses(ALONE, tmp_path / "without", double=True, num_epochs=1)
    found = values(run_ranks(2, tmp_path / "ranks", losses, tmp_path / "ranks", **options))
    for name, value in weights.items():
        torch.testing.assert_close(found[0][1][name], value, rtol=1e-9, atol=1e-12)
    assert any(not torch.allclose(without[name], value) for name, value in weights.items())


def spoiled(trainer: Trainer, code: str, where: str) -> None:
    """Let a complex give NaN in training."""
    forward = trainer.model.forward

    def poisoned(batch: Batch) -> torch.Tensor:
        predicted = forward(batch)
        if code not in batch.codes or not trainer.model.training:
            return predicted
        if where == "loss":
            return predicted * math.nan
        predicted.register_hook(lambda gradient: gradient * math.nan)
        return predicted * 1.0

    trainer.model.forward = poisoned


def poisoned_epoch(world: World, folder: Path, where: str, **changes: object) -> tuple:
    trainer = ranked_trainer(folder, world, double=True, epochs=1, max_skipped_fraction=1.0, **changes)
    spoiled(trainer, CODES[3], where)
    fit(trainer, world, double=True)
    progress = trainer.progress
    return progress.skipped_codes, progress.num_skipped, progress.step, weights_of(trainer)


@pytest.mark.fault("L1")
@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_nan_on_one_rank_drops_the_batch_on_all(tmp_path: Path, where: str, accumulation: int) -> None:
    changes = {"gradient_accumulation_steps": accumulation}
    skipped, num_skipped, step, weights = poisoned_epoch(ALONE, tmp_path / "alone", where, **changes)
    assert CODES[3] in skipped
    for found in values(run_ranks(2, tmp_path / "ranks", poisoned_epoch, tmp_path / "ranks", where, **changes)):
        assert found[:3] == (skipped, num_skipped, step)
        for name, value in weights.items():
            torch.testing.assert_close(found[3][name], value, rtol=1e-9, atol=1e-12)


def nothing_but_nan(world: World, folder: Path) -> str:
    trainer = ranked_trainer(folder, world, epochs=1)
    for code in CODES:
        spoiled(trainer, code, "loss")
    with pytest.raises(TrainingError) as raised:
        fit(trainer, world)
    return str(raised.value)


def test_all_ranks_stop_for_the_same_reason(tmp_path: Path) -> None:
    one, other = values(run_ranks(2, tmp_path, nothing_but_nan, tmp_path))
    assert one == other
    assert "2 of 3 batches of epoch 1 skipped" in one


def overflowing(world: World, folder: Path) -> tuple:
    trainer = ranked_trainer(folder, world, epochs=1, precision="fp16")
    forward = trainer.model.forward
    before = trainer.scaler.get_scale()

    def too_large(batch: Batch) -> torch.Tensor:
        predicted = forward(batch)
        if CODES[3] in batch.codes and torch.is_autocast_enabled("cpu") and predicted.requires_grad:
            predicted.register_hook(lambda gradient: gradient * math.inf)
        return predicted * 1.0

    trainer.model.forward = too_large
    trainer._train_window(list(shares(world)(0, 0)))
    return trainer.progress.num_overflows, trainer.progress.step, trainer.scaler.get_scale() / before


def test_an_overflow_on_one_rank_halves_the_scale_of_all(tmp_path: Path) -> None:
    assert values(run_ranks(2, tmp_path, overflowing, tmp_path)) == [(1, 0, 0.5)] * 2


def short_of_memory(world: World, folder: Path) -> tuple:
    trainer = ranked_trainer(folder, world, double=True, epochs=1)
    forward = trainer.model.forward

    def limited(batch: Batch) -> torch.Tensor:
        if world.rank == 1 and trainer.model.training and batch.num_graphs > 1:
            raise torch.OutOfMemoryError("out of memory, said by the test")
        return forward(batch)

    trainer.model.forward = limited
    fit(trainer, world, double=True)
    return trainer.progress.edge_limit, trainer.progress.num_skipped, weights_of(trainer)


def test_memory_that_is_full_on_one_rank_is_known_to_all_and_changes_no_gradient(tmp_path: Path) -> None:
    _, wanted, _ = losses(ALONE, tmp_path / "alone", double=True, num_epochs=1)
    found = values(run_ranks(2, tmp_path / "ranks", short_of_memory, tmp_path / "ranks"))
    assert found[0][0] == found[1][0] is not None
    for _, num_skipped, weights in found:
        assert num_skipped == 0
        for name, value in wanted.items():
            torch.testing.assert_close(weights[name], value, rtol=1e-9, atol=1e-12)


def until(
    world: World, folder: Path, *, step: int | None, number: int = signal.SIGINT, by: int = 1, **changes
) -> tuple:
    """Train; at a step a signal comes to one rank. Goes on from what lies in the folder."""
    trainer = ranked_trainer(folder, world, double=True, epochs=3, **changes)
    newest = world.from_main(newest_checkpoint(folder / "checkpoints") if world.is_main else None)
    if newest:
        trainer.load_state_dict(newest[1])
    forward, sent = trainer.model.forward, []

    def signalled(batch: Batch) -> torch.Tensor:
        if trainer.model.training and trainer.progress.step == step and world.rank == by and not sent:
            sent.append(True)
            os.kill(os.getpid(), number)
        return forward(batch)

    trainer.model.forward = signalled
    stopped = fit(trainer, world, double=True)
    return stopped, trainer.progress.step, weights_of(trainer), trainer.progress.train_rmse


@pytest.mark.fault("L2")
@pytest.mark.parametrize(("number", "by"), [(signal.SIGINT, 1), (signal.SIGTERM, 0)])
def test_a_signal_to_one_rank_stops_all_at_the_same_step(tmp_path: Path, number: int, by: int) -> None:
    folder = tmp_path / "stopped"
    found = values(run_ranks(2, folder, until, folder, step=4, number=number, by=by, dropout=0.2))
    assert [one[:2] for one in found] == [(number, 5)] * 2
    assert [path.name for path in (folder / "checkpoints").iterdir()].count("INTERRUPTED.pth.tar") == 1
    resumed = values(run_ranks(2, folder, until, folder, step=None, dropout=0.2))
    whole = values(run_ranks(2, tmp_path / "whole", until, tmp_path / "whole", step=None, dropout=0.2))
    assert_same(resumed[0][2], whole[0][2])
    assert_same(resumed[1][2], whole[0][2])


@pytest.mark.fault("L7")
@pytest.mark.parametrize(
    ("first", "then", "stops"),
    [
        (2, 1, [4]),
        (1, 4, [4]),
        *(pytest.param(*numbers, range(8), marks=pytest.mark.slow) for numbers in [(2, 1), (1, 2), (2, 4)]),
    ],
)
def test_a_run_goes_on_with_another_number_of_ranks(tmp_path: Path, first: int, then: int, stops: list[int]) -> None:
    _, step, weights, _ = until(ALONE, tmp_path / "whole", step=None)
    assert step == 3 * BATCHES
    for stop in stops:
        folder = tmp_path / f"stop_{stop}"
        stopped = values(run_ranks(first, folder, until, folder, step=stop, by=0))
        assert stopped[0][:2] == (signal.SIGINT, stop + 1)
        for found in values(run_ranks(then, folder, until, folder, step=None)):
            assert found[1] == step
            for name, value in weights.items():
                torch.testing.assert_close(found[2][name], value, rtol=1e-7, atol=1e-9)


@pytest.mark.fault("L3")
def test_a_rank_that_is_killed_ends_the_others_with_its_name_and_a_state_to_go_on_from(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    alive, dead = run_ranks(2, folder, until, folder, step=4, number=signal.SIGKILL, dropout=0.2)
    assert dead.exit_code == -signal.SIGKILL
    assert isinstance(alive.error, RankLostError)
    assert "rank 1 has ended" in str(alive.error)
    assert load_checkpoint(folder / "checkpoints/CRASHED.pth.tar")["progress"]["step"] == 4
    resumed = values(run_ranks(2, folder, until, folder, step=None, dropout=0.2))
    whole = values(run_ranks(2, tmp_path / "whole", until, tmp_path / "whole", step=None, dropout=0.2))
    assert_same(resumed[0][2], whole[0][2])


@pytest.mark.fault("L3")
def test_the_main_rank_that_is_killed_ends_the_others(tmp_path: Path) -> None:
    dead, alive = run_ranks(2, tmp_path, until, tmp_path, step=4, number=signal.SIGKILL, by=0)
    assert dead.exit_code == -signal.SIGKILL
    assert "rank 0 has ended" in str(alive.error)
    assert not (tmp_path / "checkpoints/CRASHED.pth.tar").exists()


def what_is_written(world: World, folder: Path) -> tuple:
    calls: list[str] = []
    for name in ("save_checkpoint", "write_history"):
        real = getattr(saving, name)
        setattr(saving, name, lambda *given, real=real, name=name, **more: (calls.append(name), real(*given, **more)))
    (folder / "SAVE_NOW.flag").touch()
    trainer = ranked_trainer(folder, world, epochs=2, profile=True)
    fit(trainer, world)
    return calls, not (folder / "SAVE_NOW.flag").exists()


@pytest.mark.fault("L6")
def test_only_the_main_rank_writes(tmp_path: Path) -> None:
    (main, taken), (other, _) = values(run_ranks(2, tmp_path, what_is_written, tmp_path))
    assert {"save_checkpoint", "write_history"} == set(main)
    assert taken
    assert other == []
    assert len((tmp_path / "results/history.csv").read_text().splitlines()) == 1 + 2


def dropped_out(world: World, folder: Path) -> tuple:
    trainer = ranked_trainer(folder, world, dropout=0.5)
    drawn: list[float] = []
    forward: Callable = trainer.model.forward
    trainer.model.forward = lambda batch: (drawn.append(torch.rand(1).item()), forward(batch))[1]
    trainer._train_window([next(shares(world)(0, 0))])
    return tuple(drawn)


def test_ranks_draw_unlike_random_numbers(tmp_path: Path) -> None:
    one, other = values(run_ranks(2, tmp_path, dropped_out, tmp_path))
    assert one != other


# Before the training, while the other ranks wait for a word of the main one


def build_together(world: World, settings: Settings, dies: str = "") -> tuple[list[str], int]:
    """The codes of which this rank has built graphs, and how many the main rank says were built."""
    built, build_one = [], cache._build_one

    def watched(files: ComplexFiles, **options: object) -> tuple:
        if files.code == dies:
            os._exit(3)
        built.append(files.code)
        return build_one(files, **options)

    cache._build_one = watched
    if not world.is_main:
        assert world.answer() is None
        return built, 0
    return built, len(load_dataset(settings.data, settings.graph, settings.processing, world).cache.graphs)


def test_graphs_are_built_by_all_ranks(tmp_path: Path) -> None:
    settings, codes = small_settings(tmp_path), ["1aaa", "1bad", "1bbb", "1ccc"]
    write_dataset(tmp_path / "data", codes)
    (tmp_path / "data" / "1bad" / "1bad_ligand.sdf").write_text("")
    one, other = values(run_ranks(2, tmp_path / "ranks", build_together, settings))
    assert one == (codes[::2], 3)
    assert other == (codes[1::2], 0)
    again = load_dataset(settings.data, settings.graph, settings.processing)
    assert again.cache.num_built == 0
    assert [row.code for row in again.skipped] == ["1bad"]
    assert not [path for path in again.cache.folder.iterdir() if path.is_dir()]


def test_what_one_rank_has_built_outlives_the_other(tmp_path: Path) -> None:
    settings = small_settings(tmp_path)
    write_dataset(tmp_path / "data", ["1aaa", "1bbb", "1ccc", "1ddd"])
    one, other = run_ranks(2, tmp_path / "ranks", build_together, settings, dies="1ddd")
    assert other.exit_code == 3
    assert isinstance(one.error, RankLostError)
    assert "rank 1 has ended" in str(one.error)
    again = load_dataset(settings.data, settings.graph, settings.processing)
    assert len(again.cache.graphs) == 4
    assert again.cache.num_built == 2


def plan_together(world: World, settings: Settings) -> float | None:
    memory_plan.usable_memory = lambda _: [9e9, 3e9][world.rank]
    memory_plan.measure_step_memory = lambda *_: {}
    if not world.is_main:
        return world.answer()
    return memory_plan.plan_memory(settings, EXAMPLES, torch.device("cpu"), world=world).available


def test_what_fits_is_decided_by_the_rank_with_the_least_memory(tmp_path: Path) -> None:
    assert values(run_ranks(2, tmp_path, plan_together, small_settings(tmp_path))) == [3e9, None]
