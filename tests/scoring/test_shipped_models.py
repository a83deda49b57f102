"""The models that come with the program score, and belong to the graphs that it builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.data_processing import DATA_PROCESSING_VERSION
from src.scoring.ensemble import find_checkpoints, load_ensemble
from tests.complexes import pdb_text, sdf_text

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"
SHIPPED = ("pretrained", "cleansplit")
MAX_BYTES = 20e6  # all of them together: whoever gets the program downloads them


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_ensemble_scores_a_complex(name: str, tmp_path: Path) -> None:
    (tmp_path / "p.pdb").write_text(pdb_text())
    (tmp_path / "l.sdf").write_text(sdf_text())
    ensemble = load_ensemble(find_checkpoints([CHECKPOINTS / name]), "cpu")
    (scored,) = ensemble.score(tmp_path / "p.pdb", tmp_path / "l.sdf")
    assert scored.failure == ""
    assert len(scored.members) > 1
    assert 2.0 < scored.pk < 8.0  # a ligand of four atoms that touches three residues
    assert scored.interval[0] < scored.pk < scored.interval[1]
    assert (scored.trust.word, bool(scored.trust.reason)) == ("low", True)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_of_a_shipped_ensemble_names_its_graphs(name: str) -> None:
    card = (CHECKPOINTS / name / "README.md").read_text(encoding="utf-8")
    assert f"data processing version {DATA_PROCESSING_VERSION}" in " ".join(card.split())


def test_the_shipped_models_are_small() -> None:
    assert sum(path.stat().st_size for name in SHIPPED for path in (CHECKPOINTS / name).iterdir()) < MAX_BYTES
