"""What the kernels of a layer are: one way among several to compute the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from src.visnet.edge_rows import EdgeRows
from src.visnet.message_passing import Edges, EdgeWeights, Form, Messages, Nodes, ReadFeature


class Kernels(Protocol):
    """One way to run a layer. The edge operation is without autograd, its derivative stands beside it."""

    def prepared(self, edges: Edges, num_atoms: int) -> Edges:
        """The edges of a batch with what else these kernels read of them."""

    def edge_rows(self, rows: EdgeRows, x: Tensor) -> Tensor | None:
        """Features [E, F] or sums over neighbours [N, F], for autograd; None = by the formulas of the rows."""

    def rms_norm(self, vec: Tensor, weight: Tensor) -> Tensor:
        """`geometry.rms_norm` of vectors [N, L, F] times weights [F], for autograd."""

    def atom_change(self, gates: Tensor, projected: Tensor) -> tuple[Tensor, Tensor]:
        """Changes of scalars [N, F] and vectors [N, L, F], from gates [N, 3F] and projections [N, L, 3F].

        Of projected vectors A, B, C and gates a, b, c they are b (A.B) + c and a C.
        """

    def longest_run(self, channels: int, device: torch.device) -> int:
        """Edges that are worked on at once on this kind of device, which need not be there."""

    def messages(
        self,
        nodes: Nodes,
        read_feature: ReadFeature,
        edges: Edges,
        weights: EdgeWeights,
        form: Form,
        *,
        updated: Tensor | None,
        kept: list[Tensor] | None = None,
    ) -> Messages:
        """`pass_messages`.

        Args:
            updated: [E, F], the new features are written into it.
            kept: takes tensors with which `gradients` has less to compute again; None = nothing is kept.
        """

    def gradients(
        self,
        nodes: Nodes,
        read_feature: ReadFeature,
        edges: Edges,
        weights: EdgeWeights,
        form: Form,
        grad: Messages,
        kept: Sequence[Tensor] = (),
    ) -> tuple[Nodes, Tensor, EdgeWeights]:
        """The gradient of `pass_messages` with respect to nodes, features [E, F] and weights.

        Args:
            kept: what `messages` has put there; empty where nothing was to be kept.
        """
