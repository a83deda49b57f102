"""Imports point down: a file uses only files on lower lines of this page, never a neighbour."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LINES = """
main predict
results preparation selftest screening joining
casf_scoring
training prediction demo memory_plan report model_card explanation
pose_graphs optimization experiment gradients step_memory compilation findings figures casf watching splits augmentation
domain dataset evaluation inference progress baselines attrition
cache pose_changes explanation_page score_files joined_model
poses data_processing model pdbbind similarity explanation_files
structures ligands tables descriptions readout gaussian_process
records ligand_typing ligand_parsing layouts split_files attribution
calibration residues affinity recomputation emergency contact_profiles
atoms message_passing layers workers checkpoint locks manifest demo_poses
storage stop_signals packing out_of_memory geometry
settings graph installation terminal report_style
"""
LEVEL = {name: -number for number, line in enumerate(LINES.split("\n")) for name in line.split()}
FILES = [*ROOT.glob("*.py"), *(ROOT / "src").glob("*.py")]


def imported_rooms(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return {module.removeprefix("src.") for module in modules if module.startswith("src.") or module == "config"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_imports_point_down(path: Path) -> None:
    if path.stem in ("__init__", "config"):
        return
    assert path.stem in LEVEL, f"{path.name} has no line on this page"
    for room in imported_rooms(path) - {"config"}:
        assert LEVEL[room] < LEVEL[path.stem], f"{path.name} imports {room}, which does not lie below it"


def test_only_main_reads_config() -> None:
    assert [path.name for path in FILES if "config" in imported_rooms(path)] == ["main.py"]


def test_every_room_on_the_page_exists() -> None:
    assert set(LEVEL) <= {path.stem for path in FILES}


@pytest.mark.parametrize("forbidden", ["weights_only=False", "InMemoryDataset", "torch.load("])
def test_files_are_loaded_in_one_place_and_never_as_code(forbidden: str) -> None:
    allowed = {"storage.py"} if forbidden == "torch.load(" else set()
    assert {path.name for path in FILES if forbidden in path.read_text(encoding="utf-8")} == allowed
