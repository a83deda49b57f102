"""What each edge makes of the rows of its atoms by a filter of its length and kind."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from torch import Tensor, nn

from src.visnet.geometry import expnorm_basis
from src.visnet.message_passing import Edges, compute_dtype


@dataclass(frozen=True)
class RadialBasis:
    """`expnorm_basis` of edges; both kinds of rows read it."""

    distance: Tensor  # [E] Å
    cutoff: Tensor  # [E] Å
    means: Tensor  # [R]
    betas: Tensor  # [R]
    is_kept: bool  # made once for all edges, else anew for each run of them

    @cached_property
    def values(self) -> Tensor:
        """[E, R]"""
        return expnorm_basis(self.distance, self.cutoff, self.means, self.betas)

    def __call__(self, chunk: slice) -> Tensor:
        if self.is_kept:
            return self.values[chunk]
        return expnorm_basis(self.distance[chunk], self.cutoff[chunk], self.means, self.betas)


class EdgeRows(NamedTuple):
    """Rows [E, F] from x [N, F]; no other tensor in it has a gradient but the parameters.

    With w the filter of its length and k what its kind adds, an edge makes of the row x of its source x (w + k) e,
    with e the envelope, or of the sum x of the rows of both ends x w + k.
    """

    edges: Edges
    basis: RadialBasis
    chemistry: Tensor  # [E] int64, edge kind and bond type in one number
    filter: nn.Linear
    kind: nn.Embedding
    of_both_ends: bool

    @property
    def ends(self) -> tuple[Tensor, ...]:
        """One or two indices [E] of atoms."""
        return (self.edges.target, self.edges.source) if self.of_both_ends else (self.edges.source,)

    @property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        return (*self.filter.parameters(), *self.kind.parameters())

    def __call__(self, x: Tensor, chunk: slice = slice(None)) -> Tensor:
        return self.make(self.gathered(x, chunk), chunk)

    def gathered(self, x: Tensor, chunk: slice) -> Tensor:
        first, *others = (x.index_select(0, end[chunk]) for end in self.ends)
        return sum(others, first)

    def make(self, gathered: Tensor, chunk: slice) -> Tensor:
        """Rows [C, F] from x summed over the ends [C, F]."""
        filters, by_kind = self.filter(self.basis(chunk)), self.kind(self.chemistry[chunk])
        if self.of_both_ends:
            feature = gathered * filters + by_kind
            return feature.to(compute_dtype(feature))
        return gathered * (filters + by_kind) * self.edges.envelope[chunk]
