"""Complexes with measured pK -> a Gaussian process that predicts pK by their likeness to a new one.

It is the memory beside a network: it knows single training complexes and says what those like a new one bind with,
where the network says what holds for all. It is fitted in closed form within seconds (Rasmussen & Williams, Gaussian
Processes for Machine Learning, 2006, eq. 2.25; beyond MAX_REFERENCES complexes the subset of regressors, eq. 8.14).

Shapes: G complexes of a batch, n reference complexes, D coordinates, C contacts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from src.checkpoint import CheckpointError
from src.gaussian_process.likenesses import (
    NUM_BITS,
    Likenesses,
    environment_bits,
    packed,
    saturation,
    shared_bits,
    squared_distances,
)
from src.gaussian_process.profiles import (
    NUM_CLASSES,
    NUM_CONTACT_COUNTS,
    NUM_TYPES,
    ContactProfiles,
    LabelledProfiles,
    contact_profiles,
    labelled_profiles,
)
from src.graph import RESIDUE_TYPES, Batch
from src.visnet.readout import contact_weights, line_through

MAX_REFERENCES = 5000  # more training complexes shape the prediction through so many of them, drawn at random
NOISE = 0.3  # variance, in units of that of a kernel term
RARE = 0.01  # a count that fewer than this fraction of the training complexes have is not compared ...
ABSENT = 0.01  # ... where a complex has it only above this
REFERENCE_STEPS = 127  # int8 steps from 0 to FARTHEST in what a checkpoint stores of a reference
FARTHEST = 4.0  # standard deviations that no count is beyond; those within half of it are hardly changed
PATH_POINTS = 32  # points of the quadrature over the contacts' common scale
LEAST_DEVIATION = 1e-6  # standard deviation of a log count that does not vary
ROWS_AT_A_TIME = 1000
DIAGONAL_JITTER = 1e-6  # fraction of the mean diagonal; float32 tells near copies apart by noise alone

NUM_COUNTS = NUM_CONTACT_COUNTS + len(RESIDUE_TYPES) * (NUM_CLASSES + 1) + NUM_TYPES + 1

# What a checkpoint holds of a process: numbers, and tensors of n references, D coordinates and B bytes.
_NUMBERS = ("cutoff", "intercept", "slope")
_TENSORS = {
    "columns": (torch.int32, "D"),
    "mean": (torch.float32, "D"),
    "deviation": (torch.float32, "D"),
    "factor": (torch.float32, "D"),
    "references": (torch.int8, "nD"),
    "environments": (torch.uint8, "nB"),
    "weights": (torch.float32, "n"),
}


class GaussianProcess(nn.Module):
    """pK as a line in the weighted contacts plus the likeness to each reference times its weight.

    Two complexes are alike by their contacts and atoms, by ligand, and by ligand and touched residues together:

        k = s s' (exp(-d^2) + T * (1 + exp(-r^2)))

    with s the saturation of each, d^2 the mean squared difference of standardised log counts (a third each for
    contacts by atom types, contacts by residue types, ligand atoms; bent to at most FARTHEST), r^2 that of contacts by
    residue type, and T the ligands' Tanimoto similarity.
    """

    def __init__(self, stored: Mapping[str, Any]) -> None:
        """
        Args:
            stored: as state_facts gives it and read_process checks it.
        """
        super().__init__()
        self.cutoff, self.intercept, self.slope = stored["cutoff"], stored["intercept"], stored["slope"]
        self.num_residue_columns: int = stored["num_residue_columns"]
        self.codes: tuple[str, ...] = tuple(stored["codes"])
        bits = np.unpackbits(stored["environments"].numpy(), axis=1)
        buffers = {name: stored[name].float() for name in ("mean", "deviation", "factor", "weights")}
        buffers["references"] = stored["references"].float() * (FARTHEST / REFERENCE_STEPS * buffers["factor"])
        buffers |= {"columns": stored["columns"].long(), "environments": torch.from_numpy(bits.T.copy()).float()}
        buffers["num_environments"] = buffers["environments"].sum(0)
        points, lengths = np.polynomial.legendre.leggauss(PATH_POINTS)
        buffers["path"] = torch.from_numpy(np.stack([points + 1, lengths]) / 2).float()  # [2, points] scales, lengths
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor, persistent=False)

    def state_facts(self) -> dict[str, Any]:
        """What a checkpoint says of it, as plain values."""
        return {
            **{name: getattr(self, name) for name in _NUMBERS},
            "num_residue_columns": self.num_residue_columns,
            "codes": list(self.codes),
            "columns": self.columns.int().cpu(),
            **{name: getattr(self, name).cpu() for name in ("mean", "deviation", "factor", "weights")},
            "references": self._rounded(self.references).cpu(),
            "environments": packed(self.environments.t()),
        }

    def forward(self, batch: Batch) -> Tensor:
        """pK [G] of the complexes of a batch."""
        profiles = self.profiles(batch)
        return self.predict(profiles, self.likenesses(profiles))

    def profiles(self, batch: Batch) -> ContactProfiles:
        """What the complexes of a batch are compared by."""
        return contact_profiles(batch, contact_weights(batch, self.cutoff))

    def predict(self, profiles: ContactProfiles, likenesses: Likenesses) -> Tensor:
        """pK [G] of complexes whose likenesses with the references are known."""
        by_likeness = saturation(profiles.total) * self.weigh(likenesses)
        return self.intercept + self.slope * profiles.total + by_likeness

    def contributions(self, batch: Batch) -> Tensor:
        """What each contact adds to `intercept`, [C] pK; together they are the prediction.

        What likeness adds is shared out along the way on which all contacts grow from nothing to their weight: each
        gets the integral of its derivative (Aumann-Shapley values, as in Sundararajan et al., arXiv 1703.01365).
        """
        weights = contact_weights(batch, self.cutoff)
        scales, lengths = self.path

        def on_way(counts: Tensor) -> Tensor:
            """[points * G, ...] of counts [G, ...], which grow with the weights of the contacts."""
            return (scales.view(-1, *[1] * counts.dim()) * counts).flatten(0, 1)

        with torch.enable_grad():
            grown = weights.detach().requires_grad_()
            contacts, residues, *of_ligand, total = contact_profiles(batch, grown)
            whole = [counts.repeat(len(scales), 1) for counts in of_ligand]
            profiles = ContactProfiles(on_way(contacts), on_way(residues), *whole, on_way(total))
            by_likeness = saturation(profiles.total) * self.weigh(self.likenesses(profiles))
            # The chain rule gives the scale of a point once more, as a factor.
            added = (by_likeness.view(len(scales), batch.num_graphs).sum(1) * lengths / scales).sum()
            (slope,) = torch.autograd.grad(added, grown)
        return (self.slope + slope) * weights

    def weigh(self, likenesses: Likenesses) -> Tensor:
        """[G] the sum over the references of likeness times weight."""
        return likenesses.kernel @ self.weights

    def facts(self, profiles: ContactProfiles, likenesses: Likenesses) -> Tensor:
        """[G, F] what is known of complexes beforehand that says how far a score is off, as calibration.FACTS."""
        heavy_atoms = profiles.atoms[:, -1].clamp(min=1)
        nearest = (part.amax(1) for part in (likenesses.residues, likenesses.together))
        return torch.stack([*nearest, heavy_atoms.log().to(likenesses.residues.dtype)], dim=1)

    def likenesses(self, profiles: ContactProfiles) -> Likenesses:
        """With the references, [G, n] each."""
        at, split = self.coordinates(profiles), len(self.columns) - self.num_residue_columns
        contacts = torch.exp(-squared_distances(at[:, :split], self.references[:, :split]))
        residues = torch.exp(-squared_distances(at[:, split:], self.references[:, split:]))
        bits = environment_bits(profiles)
        shared, count = shared_bits(bits, self.environments), bits.sum(1, keepdim=True)
        ligands = shared / (count + self.num_environments - shared).clamp(min=1)
        return Likenesses(contacts, ligands, residues)

    def remember(self, known: LabelledProfiles) -> None:
        """Make these the references, rounded as a checkpoint stores them."""
        stored = self._rounded(self.coordinates(known.profiles))
        self.references = stored.float() * (FARTHEST / REFERENCE_STEPS * self.factor)
        self.environments = environment_bits(known.profiles).t().contiguous()
        self.num_environments = self.environments.sum(0)
        self.codes = known.codes

    def _rounded(self, coordinates: Tensor) -> Tensor:
        """int8 [n, D]: a step is 1/32 of a standard deviation, which moves no score by 0.01 pK."""
        return (coordinates / (FARTHEST / REFERENCE_STEPS * self.factor)).round().to(torch.int8)

    def coordinates(self, profiles: ContactProfiles) -> Tensor:
        """[G, D] places whose squared distances are d^2 and, in the last columns, r^2."""
        counts = torch.log1p(torch.cat(_blocks(profiles), dim=1)).index_select(1, self.columns)
        return FARTHEST * torch.tanh((counts - self.mean) / (FARTHEST * self.deviation)) * self.factor


def fit_gaussian_process(batches: Iterable[Batch], cutoff: float) -> GaussianProcess:
    """The process of a training set with exact labels.

    Args:
        batches: on the CPU, not augmented, at least one.
        cutoff: of contacts, Å.
    """
    return fit_to_profiles(labelled_profiles(batches, cutoff), cutoff)


def fit_to_profiles(known: LabelledProfiles, cutoff: float) -> GaussianProcess:
    """The same for complexes whose profiles, of contacts to the cutoff, are made already."""
    profiles, pk = known.profiles, known.pk
    intercept, slope = line_through(profiles.total, pk)
    draw = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(pk), generator=draw)[:MAX_REFERENCES].sort().values
    references, scaling = known.of(chosen), _scaling(profiles)
    line = {"cutoff": cutoff, "intercept": intercept, "slope": slope}
    process = GaussianProcess({**scaling, **line, **no_references(len(scaling["columns"]))})
    process.remember(references)
    at = saturation(references.profiles.total).double()

    def rows(part: slice) -> Tensor:
        some = ContactProfiles(*(values[part] for values in profiles))
        return saturation(some.total).double().unsqueeze(1) * process.likenesses(some).kernel.double() * at

    rest = pk - intercept - slope * profiles.total.double()
    process.weights = (at * _solve(rows, rest, known.weight, chosen)).float()
    return process


def no_references(num_columns: int) -> dict[str, Any]:
    """What a process stores of its references while it has none."""
    return {
        "references": torch.zeros(0, num_columns, dtype=torch.int8),
        "environments": torch.zeros(0, NUM_BITS // 8, dtype=torch.uint8),
        "weights": torch.zeros(0),
        "codes": [],
    }


def read_process(stored: Mapping[str, Any] | None) -> GaussianProcess | None:
    """The process of the facts that a checkpoint holds; None for None.

    Raises:
        CheckpointError: they are not what this program writes.
    """
    if stored is None:
        return None
    width = stored["columns"].numel() if type(stored.get("columns")) is Tensor else 0
    sound = (
        are_stored(stored, _TENSORS, width)
        and all(type(stored.get(name)) is float and math.isfinite(stored[name]) for name in _NUMBERS)
        and bool((stored["deviation"] > 0).all())
        and bool(((stored["columns"] >= 0) & (stored["columns"] < NUM_COUNTS)).all())
        and type(stored.get("num_residue_columns")) is int
        and 0 <= stored["num_residue_columns"] <= width
        and stored["cutoff"] > 0
    )
    if not sound:
        raise CheckpointError(
            "the Gaussian process stored in it is not as this release writes it; for a checkpoint of an earlier one, "
            "`python main.py` with the settings of its run makes it anew, without training"
        )
    return GaussianProcess(stored)


def are_stored(stored: Mapping[str, Any], tensors: Mapping[str, tuple[torch.dtype, str]], width: int) -> bool:
    """Whether a checkpoint holds these tensors of finite numbers, and no others, with a code for each reference.

    Args:
        tensors: name -> type and dimensions: n references, D coordinates and B bytes.
        width: D.
    """
    found = {name: value for name, value in stored.items() if type(value) is Tensor}
    count = found["weights"].numel() if "weights" in found else 0
    sizes = {"n": count, "D": width, "B": NUM_BITS // 8}
    codes = stored.get("codes")
    return (
        set(found) == set(tensors)
        and all(
            found[name].dtype == dtype
            and found[name].shape == tuple(sizes[letter] for letter in shape)
            and bool(torch.isfinite(found[name]).all())
            for name, (dtype, shape) in tensors.items()
        )
        and count <= MAX_REFERENCES
        and type(codes) is list
        and len(codes) == count
        and all(type(code) is str for code in codes)
    )


def _blocks(profiles: ContactProfiles) -> tuple[Tensor, ...]:
    """[G, ...] the three kinds of counts that make d^2, then that which makes r^2; NUM_COUNTS in all."""
    residues = profiles.residues
    return profiles.contacts, residues.flatten(1), profiles.atoms, residues.sum(-1)


def _scaling(profiles: ContactProfiles) -> dict[str, Any]:
    """Which counts are compared, and what makes coordinates of them."""
    kept, factor, first = [], [], 0
    blocks = _blocks(profiles)
    for number, block in enumerate(blocks):
        is_common = (block > ABSENT).float().mean(0) > RARE
        columns = (is_common & (_deviation(torch.log1p(block)) > LEAST_DEVIATION)).nonzero().squeeze(1)
        num_parts = 1 if number == len(blocks) - 1 else len(blocks) - 1
        kept.append(first + columns)
        factor.append(torch.full((len(columns),), (num_parts * max(1, len(columns))) ** -0.5))
        first += block.shape[1]
    columns = torch.cat(kept)
    counts = torch.log1p(torch.cat(blocks, dim=1)).index_select(1, columns)
    return {
        "columns": columns.int(),
        "num_residue_columns": len(kept[-1]),
        "mean": counts.mean(0),
        "deviation": _deviation(counts),
        "factor": torch.cat(factor),
    }


def _deviation(values: Tensor) -> Tensor:
    """Standard deviation [D] of values [n, D], without a warning for a single row."""
    return (values - values.mean(0)).square().mean(0).sqrt()


def _solve(rows: Callable[[slice], Tensor], rest: Tensor, weight: Tensor, chosen: Tensor) -> Tensor:
    """Weights [n] of the references, float64.

    Args:
        rows: training complexes -> covariance with the references, [..., n].
        rest: [training complexes] pK that the weights explain.
        weight: [training complexes] how much each counts.
        chosen: [n] which training complexes are the references.
    """
    count = len(chosen)
    if count == len(rest):
        covariance = rows(slice(None))
        covariance.diagonal().add_(NOISE / weight)
        return torch.cholesky_solve(rest.unsqueeze(1), torch.linalg.cholesky(covariance)).squeeze(1)
    products, target = rest.new_zeros(count, count), rest.new_zeros(count)
    among = rest.new_empty(count, count)
    for start in range(0, len(rest), ROWS_AT_A_TIME):
        part = slice(start, min(start + ROWS_AT_A_TIME, len(rest)))
        covariance = rows(part)
        weighted = covariance * weight[part].unsqueeze(1)
        products.addmm_(weighted.t(), covariance)
        target.addmv_(weighted.t(), rest[part])
        inside = (chosen >= part.start) & (chosen < part.stop)
        among[inside] = covariance[chosen[inside] - start]
    products.add_(among + among.t(), alpha=NOISE / 2)
    products.diagonal().add_(products.diagonal().mean() * DIAGONAL_JITTER)
    return torch.linalg.solve(products, target)
