"""One CONFIG -> the runs of an ensemble or of a cross-validation, each with its seed, its fold and its folders."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from src.checkpoint import BEST, SET_ASIDE
from src.run.run_record import set_aside
from src.settings import Settings, read_settings

log = logging.getLogger(__name__)


def member_runs(settings: Settings, root: Path) -> list[Settings]:
    """The run alone, or one for each fold and member; their folders stand inside those of the settings.

    Member k has the seed `seed` + k: other first weights, order, noise and validation set, and the same test set.
    """
    config = settings.config
    folds = range(config["split_folds"]) if config["split_fold"] == "all" else [config["split_fold"]]
    count, first = settings.training.members, settings.training.seed
    if len(folds) == count == 1:
        return [settings]
    runs = []
    for fold in folds:
        for seed in range(first, first + count):
            words = [f"fold_{fold}"] * (len(folds) > 1) + [f"seed_{seed}"] * (count > 1)
            name = "_".join(words)
            own = {key: str(Path(config[key]) / name) for key in ("checkpoint_dir", "results_dir")}
            test_seed = first if config["split_seed"] is None else config["split_seed"]
            changes = {"members": 1, "split_fold": fold, "seed": seed, "split_seed": test_seed}
            runs.append(read_settings({**config, **own, **changes}, root=root))
    return runs


def set_members_aside(settings: Settings, runs: Sequence[Settings], *, fresh: bool) -> None:
    """Move away what would be taken for a part of these runs: a single run in their folder, with `fresh` all."""
    folder = Path(settings.output.checkpoint_dir)
    earlier = [folder, *(Path(one.output.checkpoint_dir) for one in runs if fresh)]
    for moved in filter(None, map(set_aside, earlier)):
        log.info("earlier checkpoints are now in %s", moved)
    own = {Path(one.output.checkpoint_dir).name for one in runs}
    if others := sorted({path.parent.name for path in folder.glob(f"*/{BEST}")} - own):
        others = [name for name in others if not name.startswith(SET_ASIDE)]
        if others:
            log.warning("%s also holds models of other runs, which score with these: %s", folder, ", ".join(others))
