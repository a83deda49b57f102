"""The page of a series, as predict.py makes it: beside a table, of pairs and of poses, and never over another file."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import predict as scoring_program
from src.checkpoint import load_checkpoint, save_checkpoint
from src.scoring.ensemble import Ensemble
from tests.complexes import sdf_text
from tests.training_runs import Run, score_options


def series_options(run: Run, folder: Path, count: int = 3) -> list[str]:
    poses = folder / "poses.sdf"
    poses.write_text("".join(sdf_text(f"pose{n % 3}", (0.1 * n, 0.0, 0.0)) for n in range(count)))
    return [*score_options(run, "1a01"), "--ligand_path", str(poses), "--report", str(folder / "series.html")]


def pairs_options(run: Run, folder: Path, columns: str, cells: str = "") -> list[str]:
    protein, ligand, checkpoint = score_options(run, "1a01")[1::2]
    rows = [f"{protein},{path},{pk}{cells}" for path, pk in ((ligand, 6.5), ("absent.sdf", 7.0))]
    (folder / "pairs.csv").write_text("\n".join([f"protein_path,ligand_path,{columns}", *rows]))
    pairs = ["--pairs", str(folder / "pairs.csv"), "--checkpoint", checkpoint]
    return [*pairs, "--report", str(folder / "series.html"), "--overwrite"]


def test_a_page_beside_a_table_has_measured_values_of_pairs_and_what_failed(trained: Run, tmp_path: Path) -> None:
    output = tmp_path / "scores.csv"
    assert scoring_program.main([*pairs_options(trained, tmp_path, "pKd"), "--output", str(output)]) == 0
    text = (tmp_path / "series.html").read_text(encoding="utf-8")
    assert "<b>6.50</b>" in text
    assert "Agreement with measured values (n = 1)" in text
    assert "absent.sdf: there is no such file" in text
    with open(output, newline="", encoding="utf-8") as file:
        (row, _) = csv.DictReader(file)
    assert f"<td><b>{float(row['pK']):.2f}</b>" in text


def test_a_pk_of_an_earlier_scoring_is_no_measured_value(trained: Run, tmp_path: Path) -> None:
    for columns, count in (("pK,dG_kcal_mol_298K", 0), ("pK,predicted_pK,dG_kcal_mol_298K", 1), ("unit", 0)):
        cells = ",1" * columns.count(",")
        assert scoring_program.main(pairs_options(trained, tmp_path, columns, cells)) == 0
        text = (tmp_path / "series.html").read_text(encoding="utf-8")
        assert ("<b>6.50</b>" in text) == bool(count), columns
        assert ("No measured values" in text) == (not count), columns


@pytest.mark.parametrize(("more", "count"), [([], 6), (["--best_pose"], 3), (["--top", "2"], 2)])
def test_a_page_has_the_poses_that_a_table_has(trained: Run, tmp_path: Path, more: list[str], count: int) -> None:
    assert scoring_program.main([*series_options(trained, tmp_path, 6), *more]) == 0
    text = (tmp_path / "series.html").read_text(encoding="utf-8")
    assert text.count("<svg") == count
    assert ("best of 2 poses" in text) == ("--best_pose" in more)
    assert "synthetic demo set" not in text


def test_the_page_of_a_model_of_the_demo_set_says_so(trained: Run, tmp_path: Path) -> None:
    state = load_checkpoint(trained.checkpoints / "model_best.pth.tar")
    state["dataset"] = {**state["dataset"], "synthetic": True}
    save_checkpoint(tmp_path / "demo.pth.tar", state)
    checkpoint = ["--checkpoint", str(tmp_path / "demo.pth.tar")]
    assert scoring_program.main([*series_options(trained, tmp_path, 1), *checkpoint]) == 0
    assert "synthetic demo set" in (tmp_path / "series.html").read_text(encoding="utf-8")


def test_a_page_replaces_nothing_unasked(trained: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = series_options(trained, tmp_path)
    page = tmp_path / "series.html"
    page.write_text("precious")
    assert scoring_program.main(options) == 2
    assert "give another file to --report, or add --overwrite" in caplog.text
    with open(tmp_path / "poses.sdf") as file:
        page.write_text(file.read())
    assert scoring_program.main([*options, "--ligand_path", str(page), "--overwrite"]) == 2
    assert "is the input" in caplog.text
    index = ["--explain", str(tmp_path / "why"), "--report", str(tmp_path / "why" / "index.html")]
    assert scoring_program.main([*options, *index]) == 2
    assert "is a page of --explain" in caplog.text


def test_a_reference_that_was_not_scored_is_named_and_costs_no_row(
    trained: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "scores.csv"
    options = [*series_options(trained, tmp_path), "--output", str(output), "--reference"]
    assert scoring_program.main([*options, "nobody"]) == 2
    assert "--reference nobody: no scored ligand has this name; there are: pose" in caplog.text
    assert not (tmp_path / "series.html").exists()
    assert len(output.read_text().splitlines()) == 4
    assert scoring_program.main([*options, "pose1", "--overwrite"]) == 0
    assert "<b>pose1</b> (as asked for)" in (tmp_path / "series.html").read_text(encoding="utf-8")


def test_a_page_of_a_scoring_that_was_stopped_has_all_ligands(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begin, calls = Ensemble.begin, []

    def stopped(self: Ensemble, *chunk: object) -> Callable[[], list]:
        calls.append(chunk)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return begin(self, *chunk)

    options = [*series_options(trained, tmp_path), "--output", str(tmp_path / "s.csv"), "--batch_size", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(Ensemble, "begin", stopped)
        assert scoring_program.main([*options, "--num_workers", "0"]) == 130
    assert "to go on" not in caplog.text
    caplog.set_level(logging.INFO)
    assert scoring_program.main([*options, "--num_workers", "0"]) == 0
    assert (tmp_path / "series.html").read_text(encoding="utf-8").count("<svg") == 3
    assert re.search(r"the series: .*series\.html", caplog.text)


@pytest.mark.parametrize(
    "options", [["--reference", "a"], ["--report", "series.txt"], ["--selftest", "--report", "a.html"]]
)
def test_options_that_do_not_go_together(options: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        scoring_program.main(["--protein_path", "p.pdb", "--ligand_path", "l.sdf", *options])
    assert stop.value.code == 2
    assert "--re" in capsys.readouterr().err
