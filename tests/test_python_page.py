"""The code of docs/python.md runs as it stands there, from the top to the bottom, on a few complexes."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from src.data.demo import write_demo

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


MEASURED = 11.0  # pK


class Frame:
    """What the page needs of a pandas.DataFrame."""

    def to_dict(self, orient: str) -> list[dict[str, object]]:
        assert orient == "records"
        return [{"protein_path": "receptor.pdb", "ligand_path": "pose.sdf", "batch": "A7"}]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Every name that the page leaves behind."""
    folder = tmp_path_factory.mktemp("page")
    index = write_demo(folder / "demo", num_complexes=40)
    one = folder / "demo" / index.read_text().split("\n")[-2].split()[0]
    shutil.copy(one / f"{one.name}_protein.pdb", folder / "receptor.pdb")
    shutil.copy(one / f"{one.name}_ligand.sdf", folder / "pose.sdf")
    with (folder / "known.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("protein_path", "ligand_path", "pK"), ("receptor.pdb", "pose.sdf", MEASURED)])
    (folder / "checkpoints").symlink_to(ROOT / "checkpoints")
    small = {
        'write_demo(Path("demo"))': 'write_demo(Path("demo"), num_complexes=40)',
        '{"epochs": 2,': f'{{"epochs": 1, "dataset_path": {str(folder / "demo")!r}, '
        f'"processed_data_dir": {str(folder / "graphs")!r}, "manual_save_trigger_file": {str(folder / "SAVE")!r},',
        "runs/first": str(folder / "runs"),
    }
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.M | re.S))
    for text, other in small.items():
        assert text in code
        code = code.replace(text, other)
    found: dict[str, object] = {"frame": Frame(), "__name__": "page"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(code, "docs/python.md", "exec"), found)
        found["told"] = next(found["mine"].score(Path("receptor.pdb"), Path("pose.sdf"))).pk
    return found


@pytest.mark.slow
def test_a_row_keeps_its_columns_and_what_was_measured_moves_the_score(names) -> None:
    (row,) = names["rows"]
    assert row["batch"] == "A7"
    assert row["status"] == "ok"
    assert abs(names["told"] - MEASURED) < abs(row["pK"] - MEASURED) - 0.5


@pytest.mark.slow
def test_what_residues_add_and_the_constant_are_the_score(names) -> None:
    attribution, one = names["attribution"], names["one"]
    assert np.isclose(attribution.contact_pk.sum() + attribution.constant, one.pk, atol=1e-4)
    by_residue = sum(row["contribution_pK"] for row in names["residues"])
    assert np.isclose(by_residue, attribution.contact_pk.sum(), atol=1e-3)


@pytest.mark.slow
def test_a_training_leaves_its_results_and_networks_of_pyg_learn(names) -> None:
    assert names["exit_code"] == 0
    assert 0 < names["metrics"]["this model"]["rmse"]["value"] < 5
    for network, predict in (("gine", "gine"), ("visnet", "by_visnet")):
        before, after = (names["fit"](names[network], names[predict], epochs) for epochs in (0, 20))
        assert after < before
