"""Scored poses in any order -> of each ligand the pose with the highest pK, with the spread over its poses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from src.scoring.poses import Pose
from src.scoring.prediction import Prediction
from src.scoring.row_formats import split_items


@dataclass
class _Ligand:
    pose: Pose  # the best so far
    prediction: Prediction
    pks: list[float] = field(default_factory=list)  # of the poses that were scored


class BestPoses:
    """Poses of one ligand and one protein are those of one title, or with one value of an SDF property.

    One without is a ligand of its own: nothing says that two such belong together.
    """

    def __init__(self, by: str = "", *, keeps_molecules: bool = True):
        """
        Args:
            by: name of the property; '' for the title.
            keeps_molecules: their texts too, which a large screening may have no memory for.
        """
        self.by, self.keeps_molecules, self.num_unnamed = by, keeps_molecules, 0
        self._ligands: dict[tuple[Path, str | tuple[Path, int]], _Ligand] = {}

    def __len__(self) -> int:
        return len(self._ligands)

    def add(self, pose: Pose, prediction: Prediction) -> None:
        name = ligand_name(pose, self.by)
        self.num_unnamed += not name
        if not self.keeps_molecules:
            pose = replace(pose, record=None)
        ligand = self._ligands.setdefault((pose.protein, name or (pose.ligand, pose.number)), _Ligand(pose, prediction))
        if prediction.pk is None:
            return
        if all(prediction.pk > pk for pk in ligand.pks):  # of equal scores the earlier pose stays
            ligand.pose, ligand.prediction = pose, prediction
        ligand.pks.append(prediction.pk)

    def rows(self) -> Iterator[tuple[Pose, Prediction]]:
        """In the order of the first pose of each ligand; one of which no pose was scored has its first failure."""
        for ligand in self._ligands.values():
            spread = float(np.std(ligand.pks, ddof=1)) if len(ligand.pks) > 1 else None
            yield ligand.pose, replace(ligand.prediction, num_poses=len(ligand.pks), poses_sd=spread)


def ligand_name(pose: Pose, by: str) -> str:
    """What tells the ligand of a pose: its title, or the value of a property; '' where there is none."""
    if not by:
        return pose.title
    if pose.record is None or pose.record.kind != "sdf":
        return ""
    values = (text.partition("\n")[2] for name, text in split_items(pose.record.text)[1] if name == by)
    return " ".join(next(values, "").split())
