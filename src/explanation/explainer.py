"""Models and poses -> what each contact adds to a prediction, and a folder of files for each pose that show it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from src.chemistry.atoms import StructureError
from src.chemistry.ligands import Ligand, ligand_of
from src.chemistry.proteins import Protein, read_protein, without_copies
from src.data.batching import collate
from src.data.dataset import Example
from src.data_processing import Receptor, build_graph, pocket_atoms
from src.explanation.attribution import Attribution
from src.explanation.files import RESIDUE_COLUMNS, pdb_text, pymol_text, residue_rows, sdf_text
from src.explanation.page import FILES, Score, drawing, index_page, interval_and_remarks, name_and_pk, page
from src.gaussian_process.joined_model import ScoringModel
from src.scoring.poses import Pose
from src.settings import GraphSettings
from src.system.storage import StorageError, cause, write_csv, write_text

MAX_NAME = 40  # characters of a ligand's name in that of its folder


class PoseAttributions:
    """The terms of one pose after another; a protein is read once for all poses in it that follow each other."""

    def __init__(
        self,
        models: Sequence[ScoringModel],
        settings: GraphSettings,
        device: torch.device | str,
        templates: Sequence[Ligand] = (),
    ):
        """
        Args:
            templates: crystal ligands that poses were modelled on, which are no part of the protein.
        """
        self._models, self._settings, self._device = models, settings, device
        self._templates = [ligand.atoms for ligand in templates]
        self._receptor: tuple[Path, Receptor] | None = None

    def of(self, pose: Pose) -> Attribution:
        """The terms of a pose that was scored.

        Raises:
            StructureError: the pose or its protein cannot be read.
            GraphError: the complex has no usable graph.
        """
        ligand = ligand_of(pose.record)
        if isinstance(ligand, StructureError):
            raise ligand
        if self._receptor is None or self._receptor[0] != pose.protein:
            self._receptor = pose.protein, Receptor(without_copies(read_protein(pose.protein), self._templates))
        protein = self._receptor[1].around(ligand.atoms.pos, self._settings.pocket_radius)
        return explain(self._models, ligand, protein, self._settings, self._device)


class Explainer:
    """Writes the files of one pose after another."""

    def __init__(self, folder: Path, attributions: PoseAttributions, *, model_name: str, replaces: bool = False):
        """
        Args:
            replaces: the poses that an earlier run explained go, as soon as there is something to put in their place.
        """
        self.folder, self.model_name, self._replaces = folder, model_name, replaces
        self._attributions = attributions

    def add(
        self, pose: Pose, number: int, interval: tuple[float, float] | None = None, remarks: Sequence[str] = ()
    ) -> Attribution:
        """Explain a pose that was scored.

        Args:
            number: of the pose, from 1; it keeps the folders of poses of one name apart.
            interval: of the prediction, pK.
            remarks: what the page says of the score before it explains it.

        Raises:
            StructureError: the pose or its protein cannot be read.
            StorageError: the disk does not take the files.
        """
        attribution = self._attributions.of(pose)
        self._remove_earlier()
        score = Score(self.model_name, pose.protein.name, pose.ligand.name, interval, remarks)
        write_explanation(self.folder, number, attribution, score)
        return attribution

    def close(self) -> Path:
        """Write a page that leads to those of all poses in the folder, those of a run that was stopped included."""
        rows = []
        for path, text in self._pages():
            rows.append((*name_and_pk(text), *interval_and_remarks(text), path.relative_to(self.folder).as_posix()))
        write_text(self.folder / "index.html", index_page(rows))
        return self.folder / "index.html"

    def _pages(self) -> Iterator[tuple[Path, str]]:
        """The pages that this program made, by number, and their text."""
        pages = (path for path in self.folder.glob("*/explanation.html") if re.match(r"\d+_", path.parent.name))
        for path in sorted(pages, key=lambda path: int(path.parent.name.partition("_")[0])):
            text = path.read_text(encoding="utf-8", errors="replace")
            if name_and_pk(text):
                yield path, text

    def _remove_earlier(self) -> None:
        """Once: files of this program in folders of earlier poses, and the folders when nothing else is in them."""
        pages = list(self._pages()) if self._replaces else []
        self._replaces = False
        for page_path, _ in pages:
            folder = page_path.parent
            if folder.is_symlink():  # what it leads to is not part of this folder
                continue
            try:
                # The page last: a removal that was cut short can be taken up again.
                for name in (*FILES, page_path.name):
                    (folder / name).unlink(missing_ok=True)
                if not any(folder.iterdir()):
                    folder.rmdir()
            except OSError as error:
                raise StorageError(f"{folder}: the files of an earlier run stay: {cause(error)}") from error


@torch.no_grad()
def explain(
    models: Sequence[ScoringModel],
    ligand: Ligand,
    protein: Protein,
    settings: GraphSettings,
    device: torch.device | str = "cpu",
) -> Attribution:
    """The terms of the prediction of an ensemble: the mean of the models' constants, and of what they give a contact.

    Args:
        models: trained on graphs of these settings, on the device.

    Raises:
        GraphError: the complex has no usable graph.
    """
    assert models, "no model to explain"
    graph, _ = build_graph(ligand.name, ligand, protein, settings)
    pocket = pocket_atoms(ligand, protein, settings)
    batch = collate([Example(graph, math.nan)])
    on_device = batch.to(device)
    told = [torch.cat([model.eval().constant.view(1), model.contributions(on_device).pk]) for model in models]
    constant, *contact_pk = torch.stack(told).double().cpu().numpy().mean(axis=0)
    ligand_atom, pocket_atom = batch.contacts.numpy()
    assert len(pocket) == graph.num_atoms - graph.num_ligand_atoms, "the pocket is not that of the graph"
    return Attribution(
        name=ligand.name,
        mol=ligand.mol,
        ligand=ligand.atoms,
        pocket=pocket,
        constant=float(constant),
        contact_pk=np.array(contact_pk),
        ligand_atom=ligand_atom,
        pocket_atom=pocket_atom - graph.num_ligand_atoms,
        num_models=len(models),
    )


def write_explanation(folder: Path, number: int, attribution: Attribution, score: Score) -> Path:
    """Write the files of one pose into a folder of its own in `folder`, and return the path of its page.

    Args:
        number: of the pose, from 1; it keeps the folders of poses of one name apart.

    Raises:
        StorageError: the disk does not take a file.
    """
    letters = re.sub(r"[^A-Za-z0-9_-]+", "_", attribution.name).strip("_")[:MAX_NAME]
    own = folder / f"{number:04d}_{letters or 'ligand'}"
    svg = drawing(attribution)
    if svg is not None:
        write_text(own / "ligand.svg", svg)
    write_text(own / "ligand.sdf", sdf_text(attribution))
    write_csv(own / "residues.csv", RESIDUE_COLUMNS, residue_rows(attribution))
    write_text(own / "complex.pdb", pdb_text(attribution))
    write_text(own / "complex.pml", pymol_text(attribution))
    write_text(own / "explanation.html", page(attribution, score, svg))
    return own / "explanation.html"
