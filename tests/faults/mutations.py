"""Protections of the program, each with a patch that switches it off and the tests that must then fail."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("src", "tests", "main.py", "predict.py", "config.py", "pyproject.toml")
TIMEOUT_S = 600.0
COUNT = re.compile(r"(\d+) (passed|error)")

# File below src/ and protection; - text that stands in the file once; + what takes its place; node ids below tests/.
PATCHES = r"""
system/storage.py: the file is on the disk before its name
- os.fsync(file.fileno())
+ pass
system/test_storage.py::test_the_file_reaches_the_disk_before_its_name_and_the_name_before_the_end

system/storage.py: the name is on the disk before the end
- _sync_folder(path.parent)
+ pass
system/test_storage.py::test_the_file_reaches_the_disk_before_its_name_and_the_name_before_the_end

system/storage.py: the new file takes the place of the old one in one act
- os.replace(temporary, path)
+ path.write_bytes(temporary.read_bytes())
system/test_storage.py::test_a_failed_write_changes_nothing

system/storage.py: the temporary file of a failed write is removed
- temporary.unlink(missing_ok=True)
+ pass
system/test_storage.py::test_a_full_disk_leaves_the_old_file

system/storage.py: what was written is checked before it replaces anything
- complete(temporary)
+ pass
system/test_storage.py::test_a_write_that_the_disk_garbled_does_not_replace_the_old_file

system/storage.py: no cell of a table is a formula
- [_safe_cell(cell) for cell in row]
+ [cell for cell in row]
system/test_storage.py::test_no_cell_is_a_formula

system/storage.py: checksums
- damaged = archive.testzip()
+ damaged = None
system/test_storage.py::test_every_flipped_bit_in_the_tensors_is_detected

system/storage.py: no code is loaded
- weights_only=True
+ weights_only=False
system/test_storage.py::test_code_is_named_and_never_run

system/storage.py: compressed archives are refused
- if any(e.compress_type != zipfile.ZIP_STORED or e.compress_size != e.file_size for e in entries):
+ if False:
system/test_storage.py::test_compressed_entries_are_refused_before_they_are_expanded

system/storage.py: sizes that an archive claims
- if sum(entry.file_size for entry in entries) > 1.1 * size:
+ if False:
system/test_storage.py::test_entries_that_share_bytes_are_refused

system/storage.py: a tensor has its data
- if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
+ if False:
system/test_storage.py::test_a_tensor_without_its_data_is_refused

checkpoint.py: content of a checkpoint
- _check_schema(state, required)
+ pass
test_checkpoint.py::test_wrong_content_is_named

checkpoint.py: weights to resume from are finite
- if not has_finite_weights(state):
+ if False:
test_checkpoint.py::test_damaged_and_non_finite_files_are_named_skipped_and_left

checkpoint.py: the counters inside decide which checkpoint is the newest
- progress_of(state) > progress_of(best[1])
+ path.stat().st_mtime > best[0].stat().st_mtime
test_checkpoint.py::test_the_stored_counters_decide_not_names_or_times

checkpoint.py: no new beginning beside damaged checkpoints
- if refused and best is None:
+ if False:
test_checkpoint.py::test_all_damaged_is_an_error_not_a_new_beginning

checkpoint.py: the previous checkpoint is kept
- if keep_previous and path.exists():
+ if False:
test_checkpoint.py::test_the_previous_checkpoint_is_kept

checkpoint.py: a damaged checkpoint does not replace the previous one
-   _load_resumable(path)
+   pass
test_checkpoint.py::test_an_unusable_file_does_not_replace_the_previous_one

training.py: random state of a resumed run
- restore_rng(state["rng"])
+ pass
test_training.py::test_a_run_stopped_after_any_batch_ends_with_the_same_bits[1-cosine]

training.py: weight average of a resumed run
- self.average.load_state_dict(state["ema"])
+ pass
test_training.py::test_a_run_stopped_after_any_batch_ends_with_the_same_bits[1-cosine]

training.py: optimizer of a resumed run
- self.optimizer.load_state_dict(state["optimizer"])
+ pass
test_training.py::test_a_run_stopped_after_any_batch_ends_with_the_same_bits[1-cosine]

training.py: schedule of a resumed run
- self.scheduler.load_state_dict(state["scheduler"])
+ pass
test_training.py::test_a_run_stopped_after_any_batch_ends_with_the_same_bits[1-plateau]

training.py: the position counts batches, not optimizer steps
- progress.next_batch += len(window)
+ progress.next_batch += 1
test_training.py::test_a_run_stopped_after_any_batch_ends_with_the_same_bits[2-cosine]

training.py: the gradient is the mean over what was used
- gradient.divide(gradient.num_used / total)
+ pass
faults/test_poison.py::test_a_number_that_is_none_costs_its_batch_and_nothing_else[pos-nan-0]

training.py: gradients are clipped
- nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip_norm, norm_type)
+ pass
test_training.py::test_huge_gradients_are_clipped_and_not_skipped

training.py: the largest element is clipped before the norm of all
- for norm_type in (math.inf, 2.0):
+ for norm_type in (2.0,):
test_training.py::test_huge_gradients_are_clipped_and_not_skipped

training.py: a step is never made twice
- if fault and untouched:
+ if fault:
test_training.py::test_a_step_that_was_cut_off_is_not_made_twice

training.py: the fp16 scale has a floor
- if self.scaler.get_scale() < SMALLEST_SCALE:
+ if False:
test_training.py::test_a_gradient_scale_that_only_falls_stops_the_run

training.py: too many skips stop a run
- if too_many or progress.skipped_in_a_row >= settings.max_skipped_in_a_row:
+ if False:
test_training.py::test_a_run_of_nothing_but_nan_stops_and_says_why

optimization/saving.py: a disk that stays full ends the run
- if self._failed_saves >= MAX_FAILED_SAVES:
+ if False:
test_training.py::test_a_disk_that_stays_full_ends_the_run

optimization/gradients.py: a batch whose gradient is not finite is skipped
- if self.losses and not self._is_finite():
+ if False:
test_training.py::test_a_poisoned_batch_is_left_out_of_its_window

optimization/gradients.py: a window that ran out of memory is run again from its beginning
- self._clear()
+ pass
optimization/test_gradients.py::test_a_batch_that_does_not_fit_is_run_in_parts_with_the_same_gradient

optimization/gradients.py: a batch that does not fit is cut
- parts = self._smaller(parts, fault)
+ parts = [part for part in parts if part is not self._running]
optimization/test_gradients.py::test_a_batch_that_does_not_fit_is_run_in_parts_with_the_same_gradient

system/stop_signals.py: a second signal does not cut off a save
- self._saving = True
+ self._saving = False
system/test_stop_signals.py::test_while_saving_the_second_is_answered_and_the_third_counts

optimization/saving.py: a second signal does not cut off a save of the loop
- with stop.protected():
+ with contextlib.nullcontext():
faults/test_kills.py::test_ctrl_c_twice_and_three_times

optimization/saving.py: no half changed state is saved after a crash
- self._rng = None
+ pass
faults/test_kills.py::test_a_bug_in_the_middle_of_a_step_leaves_the_last_checkpoint

optimization/saving.py: a run keeps its last but one checkpoint
- keep_previous=name == LATEST
+ keep_previous=False
test_training.py::test_checkpoints_come_every_so_many_batches

system/locks.py: one folder, one run
- return FileLock(folder / LOCK_NAME, fallback_to_soft=False)
+ return FileLock(folder / f"{os.getpid()}{LOCK_NAME}", fallback_to_soft=False)
system/test_locks.py::test_a_second_process_is_told_who_has_the_folder_and_what_to_change

optimization/progress.py: a score that is not finite is never the best
- if validation_rmse < self.best_rmse:
+ if not validation_rmse >= self.best_rmse:
optimization/test_progress.py::test_only_a_lower_finite_score_is_better

run/run_record.py: a run goes on with its own settings and data only
- if faults:
+ if False:
run/test_run_record.py::test_all_differences_are_named_at_once

settings.py: a misspelt setting is an error
- faults = [_unknown(key) for key in config if key not in _KNOWN_KEYS]
+ faults = []
test_settings.py

system/workers.py: a task has a time cap
- self.index, self.limit_s = index, self.timeout_s
+ self.index, self.limit_s = index, START_TIMEOUT_S
system/test_workers.py::test_a_fault_costs_its_own_task_only

system/workers.py: a dead worker is replaced
- return None if index is None else (index, WorkerFault(reason))
+ return None
system/test_workers.py::test_a_fault_costs_its_own_task_only

chemistry/atoms.py: what a gzip file unpacks to is never held whole
- while size <= MAX_BYTES and (piece := stream.read(PIECE_BYTES)):
+ while piece := stream.read(PIECE_BYTES):
chemistry/test_atoms.py::test_bomb_stops_at_the_cap

chemistry/pdb_records.py: coordinates of a PDB file are finite
- if bad.any():
+ if False:
chemistry/test_proteins.py::test_bad_numbers_name_the_line

chemistry/ligands.py: coordinates of a ligand are those of a structure
- if not (np.abs(pos) <= MAX_COORDINATE).all():
+ if False:
chemistry/test_ligands.py::test_bad_coordinates_are_refused

pdbbind/affinity.py: a code is no path
- if len(code) > MAX_CODE or not _SAFE_CODE.fullmatch(code) or _DEVICE_NAME.fullmatch(code):
+ if False:
pdbbind/test_index.py::test_unsafe_code_is_refused

pdbbind/folders.py: links out of the data folder are not followed
- if not entry.is_symlink() or Path(os.path.realpath(entry)).is_relative_to(real_root):
+ if True:
pdbbind/test_folders.py::test_links_out_of_the_root_are_refused

data/cache.py: graphs in the cache are finite
- _require_finite(graphs.values())
+ pass
data/test_cache.py::test_a_shard_with_nan_is_named_and_built_again

data/manifest.py: a changed structure file is read again
- if _unchanged(record["sources"], paths):
+ if True:
data/test_cache.py::test_a_changed_file_of_the_same_size_rebuilds_its_complex_alone

gaussian_process/process.py: likeness counts nothing for a ligand that touches nothing
- return total / (total + HALF_SATURATION)
+ return torch.ones_like(total)
gaussian_process/test_process.py::test_a_ligand_that_leaves_has_the_intercept

gaussian_process/process.py: a stored process has finite numbers
- and bool(torch.isfinite(tensors[name]).all())
+ and True
gaussian_process/test_process.py::test_what_is_not_a_process_is_refused

gaussian_process/process.py: a stored process has no more references than are written
- and sizes["n"] <= MAX_REFERENCES
+ and True
gaussian_process/test_process.py::test_more_references_than_this_program_writes_are_refused

gaussian_process/joined_model.py: a few complexes do not decide the shares
- return float((count * np.clip(best, 0, 1) + PRIOR_WEIGHT * 0.5) / (count + PRIOR_WEIGHT))
+ return float(np.clip(best, 0, 1))
gaussian_process/test_joined_model.py::test_few_complexes_leave_the_shares_nearly_equal

run/joining.py: what is joined stays as it is
- if state.get("process") is not None or not train:
+ if not train:
run/test_joining.py::test_what_is_joined_stays_as_it_is
"""


class Mutation(NamedTuple):
    protection: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


class Outcome(NamedTuple):
    """What pytest counted, its exit code and the end of what it wrote."""

    passed: int
    errors: int
    code: int
    text: str

    @property
    def is_red(self) -> bool:
        """A test or its setup failed, or its signal reached pytest; not that tests could not be found or collected."""
        interrupted = self.code == pytest.ExitCode.INTERRUPTED and not self.errors
        return interrupted or self.code == pytest.ExitCode.TESTS_FAILED


class MutationError(ValueError):
    """A patch does not fit the program as it is."""


def read_patches(text: str) -> list[Mutation]:
    mutations = []
    for block in text.strip().split("\n\n"):
        title, old, new, *tests = block.splitlines()
        file, _, protection = title.partition(": ")
        if not (old.startswith("- ") and new.startswith("+ ") and tests and protection):
            raise MutationError(f"not a patch of one line each: {block}")
        mutations.append(Mutation(protection, f"src/{file}", old[2:], new[2:], tuple(tests)))
    return mutations


MUTATIONS = read_patches(PATCHES)


def without(mutation: Mutation, root: Path = ROOT) -> str:
    """The text of the mutation's file with the protection switched off.

    Raises:
        MutationError: the old text does not stand in the file exactly once.
    """
    text = (root / mutation.file).read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise MutationError(
            f"{mutation.protection}: {mutation.old!r} stands {text.count(mutation.old)} times in {mutation.file}"
        )
    return text.replace(mutation.old, mutation.new)


def copy_program(folder: Path) -> Path:
    """The program and its tests, without data, in a folder that is empty or not there."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def run_tests(root: Path, tests: Sequence[str], *options: str) -> Outcome:
    """Run tests of a copy of the program in a process of their own, slow ones too."""
    foreign = ("PYTHONPATH", "PYTEST_ADDOPTS", "AIDD_REAL_DATA")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=--strict-markers", *options]
        + [f"tests/{test}" for test in tests],
        cwd=root,
        env={**environment, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=TIMEOUT_S,
        check=False,
    )
    lines = finished.stdout.strip().splitlines() or [""]
    counts = {what: int(count) for count, what in COUNT.findall(lines[-1])}
    return Outcome(counts.get("passed", 0), counts.get("error", 0), finished.returncode, "\n".join(lines[-40:]))
