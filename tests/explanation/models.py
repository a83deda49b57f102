"""A small complex, and a random model to explain."""

from __future__ import annotations

from pathlib import Path

import torch

from src.chemistry.ligands import Ligand, read_ligand
from src.chemistry.proteins import Protein, read_protein
from src.model import AffinityModel, build_model
from tests.complexes import pdb_text as complex_pdb
from tests.complexes import sdf_text as ligand_sdf
from tests.synthetic import scattered, tiny_settings


def read(folder: Path, *, pdb: str | None = None, sdf: str | None = None) -> tuple[Ligand, Protein]:
    (folder / "p.pdb").write_text(pdb or complex_pdb())
    (folder / "l.sdf").write_text(sdf or ligand_sdf())
    return read_ligand([folder / "l.sdf"]), read_protein(folder / "p.pdb")


def random_model(seed: int = 0) -> AffinityModel:
    torch.manual_seed(seed)
    model = scattered(build_model(tiny_settings()), seed)
    model.set_label_scale(6.0 + seed, 500.0)
    return model.eval()
