"""The edge operation and its derivative as Triton kernels; products of matrices are left to torch.

A program works on the edges of one atom, one block after another, and sums what is summed there: over the edges that
end at the atom, which stand together, or over those that begin at it, in the order of `by_source`. Nothing is added
atomically, so the same batch gives the same bits.

Formulas and shapes as in message_passing.py. Where an operation has no such tensor, a `_ptr` is None.
"""

from __future__ import annotations

import triton
import triton.language as tl

from src.visnet.triton_blocks import (
    load_directions,
    load_rows,
    load_vector,
    load_vectors,
    of_channels,
    open_gate,
    per_head,
    rejected_part,
    silu,
    silu_slope,
    store_vector,
)


@triton.jit
def attend(
    target_start_ptr,
    source_ptr,
    direction_ptr,
    envelope_ptr,
    query_ptr,
    key_value_ptr,
    target_vec_ptr,
    source_vec_ptr,
    feature_ptr,
    filters_ptr,
    message_ptr,
    scalar_ptr,
    updated_ptr,
    CHANNELS: tl.constexpr,
    HEADS: tl.constexpr,
    COMPONENTS: tl.constexpr,
    PADDED: tl.constexpr,
    CORRECTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Messages of the edges that end at an atom, their sum, and the features after the layer."""
    atom, channel, component = tl.program_id(0), tl.arange(0, CHANNELS), tl.arange(0, PADDED)
    WIDTH: tl.constexpr = CHANNELS * (2 if target_vec_ptr is None else 3)
    query = tl.load(query_ptr + atom * CHANNELS + channel).to(tl.float32)[None, :]
    total = tl.zeros([CHANNELS], tl.float32)
    end = tl.load(target_start_ptr + atom + 1)
    for first in range(tl.load(target_start_ptr + atom), end, BLOCK):
        edge = first + tl.arange(0, BLOCK)
        there = edge < end
        source = tl.load(source_ptr + edge, mask=there, other=0)
        envelope = tl.load(envelope_ptr + edge, mask=there, other=0.0)[:, None]
        filters = filters_ptr + edge.to(tl.int64) * WIDTH
        filtered_key = load_rows(key_value_ptr + source * 2 * CHANNELS, there, channel) * silu(
            load_rows(filters, there, channel)
        )
        value = load_rows(key_value_ptr + source * 2 * CHANNELS + CHANNELS, there, channel)
        value *= silu(load_rows(filters + CHANNELS, there, channel))
        attention = silu(per_head(query * filtered_key, BLOCK, HEADS, CHANNELS)) * envelope
        message = value * of_channels(attention, BLOCK, HEADS, CHANNELS)
        row = edge.to(tl.int64)[:, None] * CHANNELS + channel[None, :]
        tl.store(message_ptr + row, message, mask=there[:, None])
        total += tl.sum(message, axis=0)
        if updated_ptr is not None:
            direction = load_directions(direction_ptr, edge, there, component, COMPONENTS)
            rejected = load_vectors(source_vec_ptr, source, there, component, channel, COMPONENTS, CHANNELS)
            rejected = rejected_part(rejected, direction, component, COMPONENTS, CORRECTED)
            target_vec = load_vector(target_vec_ptr, atom, component, channel, COMPONENTS, CHANNELS)[None, :, :]
            change = silu(load_rows(filters + 2 * CHANNELS, there, channel)) * tl.sum(target_vec * rejected, axis=1)
            updated = load_rows(feature_ptr + edge.to(tl.int64) * CHANNELS, there, channel) + change
            tl.store(updated_ptr + row, updated, mask=there[:, None])
    tl.store(scalar_ptr + atom * CHANNELS + channel, total)


@triton.jit
def sum_vectors(
    target_start_ptr,
    source_ptr,
    direction_ptr,
    envelope_ptr,
    vec_ptr,
    gates_ptr,
    vector_ptr,
    CHANNELS: tl.constexpr,
    COMPONENTS: tl.constexpr,
    PADDED: tl.constexpr,
    CORRECTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum of the vector messages that end at an atom."""
    atom, channel, component = tl.program_id(0), tl.arange(0, CHANNELS), tl.arange(0, PADDED)
    total = tl.zeros([PADDED, CHANNELS], tl.float32)
    end = tl.load(target_start_ptr + atom + 1)
    for first in range(tl.load(target_start_ptr + atom), end, BLOCK):
        edge = first + tl.arange(0, BLOCK)
        there = edge < end
        # Rows that are not there have a direction of zero, and vectors of zero.
        gate = open_gate(gates_ptr, envelope_ptr, edge, there, channel, vec_ptr is not None, True, CHANNELS, CORRECTED)
        vectors = load_directions(direction_ptr, edge, there, component, COMPONENTS) * gate[:, None, :]
        if vec_ptr is not None:
            source = tl.load(source_ptr + edge, mask=there, other=0)
            carried = load_vectors(vec_ptr, source, there, component, channel, COMPONENTS, CHANNELS)
            gate = open_gate(gates_ptr, envelope_ptr, edge, there, channel, True, False, CHANNELS, CORRECTED)
            vectors += carried * gate[:, None, :]
        total += tl.sum(vectors, axis=0)
    store_vector(vector_ptr, atom, component, channel, total, COMPONENTS, CHANNELS)


@triton.jit
def gates_gradient(
    target_start_ptr,
    source_ptr,
    direction_ptr,
    envelope_ptr,
    vec_ptr,
    gates_ptr,
    grad_vector_ptr,
    grad_gates_ptr,
    CHANNELS: tl.constexpr,
    COMPONENTS: tl.constexpr,
    PADDED: tl.constexpr,
    CORRECTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """With respect to the gates before the activation, of the edges that end at an atom."""
    atom, channel, component = tl.program_id(0), tl.arange(0, CHANNELS), tl.arange(0, PADDED)
    OF_VEC: tl.constexpr = 0 if vec_ptr is None else CHANNELS
    grad_vector = load_vector(grad_vector_ptr, atom, component, channel, COMPONENTS, CHANNELS)[None, :, :]
    end = tl.load(target_start_ptr + atom + 1)
    for first in range(tl.load(target_start_ptr + atom), end, BLOCK):
        edge = first + tl.arange(0, BLOCK)
        there = edge < end
        factor = tl.load(envelope_ptr + edge, mask=there, other=0.0)[:, None] if CORRECTED else 1.0
        at = edge.to(tl.int64) * (OF_VEC + CHANNELS)
        row = at[:, None] + channel[None, :]
        grad = tl.sum(grad_vector * load_directions(direction_ptr, edge, there, component, COMPONENTS), axis=1) * factor
        grad *= silu_slope(load_rows(gates_ptr + at + OF_VEC, there, channel))
        tl.store(grad_gates_ptr + row + OF_VEC, grad, mask=there[:, None])
        if vec_ptr is not None:
            source = tl.load(source_ptr + edge, mask=there, other=0)
            carried = load_vectors(vec_ptr, source, there, component, channel, COMPONENTS, CHANNELS)
            grad = (
                tl.sum(grad_vector * carried, axis=1) * factor * silu_slope(load_rows(gates_ptr + at, there, channel))
            )
            tl.store(grad_gates_ptr + row, grad, mask=there[:, None])


@triton.jit
def filters_gradient(
    target_start_ptr,
    source_ptr,
    direction_ptr,
    envelope_ptr,
    query_ptr,
    key_value_ptr,
    target_vec_ptr,
    source_vec_ptr,
    filters_ptr,
    grad_message_ptr,
    grad_scalar_ptr,
    grad_feature_ptr,
    attention_ptr,
    grad_score_ptr,
    grad_filters_ptr,
    grad_query_ptr,
    grad_target_vec_ptr,
    CHANNELS: tl.constexpr,
    HEADS: tl.constexpr,
    COMPONENTS: tl.constexpr,
    PADDED: tl.constexpr,
    CORRECTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """With respect to the filters before the activation, and to what is read at the atom where the edges end.

    The attention and the gradient of the score, [E, H] each, are left for the gradient of keys and values.
    """
    atom, channel, component = tl.program_id(0), tl.arange(0, CHANNELS), tl.arange(0, PADDED)
    head = tl.arange(0, HEADS)
    WIDTH: tl.constexpr = CHANNELS * (2 if target_vec_ptr is None else 3)
    query = tl.load(query_ptr + atom * CHANNELS + channel).to(tl.float32)[None, :]
    grad_scalar = tl.load(grad_scalar_ptr + atom * CHANNELS + channel).to(tl.float32)[None, :]
    grad_query = tl.zeros([CHANNELS], tl.float32)
    grad_target_vec = tl.zeros([PADDED, CHANNELS], tl.float32)
    end = tl.load(target_start_ptr + atom + 1)
    for first in range(tl.load(target_start_ptr + atom), end, BLOCK):
        edge = first + tl.arange(0, BLOCK)
        there = edge < end
        source = tl.load(source_ptr + edge, mask=there, other=0)
        envelope = tl.load(envelope_ptr + edge, mask=there, other=0.0)[:, None]
        at = edge.to(tl.int64) * WIDTH
        row = at[:, None] + channel[None, :]
        key_before = load_rows(filters_ptr + at, there, channel)
        value_before = load_rows(filters_ptr + at + CHANNELS, there, channel)
        key = load_rows(key_value_ptr + source * 2 * CHANNELS, there, channel)
        value = load_rows(key_value_ptr + source * 2 * CHANNELS + CHANNELS, there, channel)
        filtered_key = key * silu(key_before)
        score = per_head(query * filtered_key, BLOCK, HEADS, CHANNELS)
        attention = silu(score) * envelope
        grad_message = grad_scalar + load_rows(grad_message_ptr + edge.to(tl.int64) * CHANNELS, there, channel)
        grad_attention = per_head(grad_message * value * silu(value_before), BLOCK, HEADS, CHANNELS)
        grad_score = grad_attention * envelope * silu_slope(score)
        spread_score = of_channels(grad_score, BLOCK, HEADS, CHANNELS)
        of_value = grad_message * of_channels(attention, BLOCK, HEADS, CHANNELS) * value
        grad_query += tl.sum(filtered_key * spread_score, axis=0)
        tl.store(grad_filters_ptr + row, query * spread_score * key * silu_slope(key_before), mask=there[:, None])
        tl.store(grad_filters_ptr + row + CHANNELS, of_value * silu_slope(value_before), mask=there[:, None])
        of_edge = edge.to(tl.int64)[:, None] * HEADS + head[None, :]
        tl.store(attention_ptr + of_edge, attention, mask=there[:, None])
        tl.store(grad_score_ptr + of_edge, grad_score, mask=there[:, None])
        if target_vec_ptr is not None:
            gate_before = load_rows(filters_ptr + at + 2 * CHANNELS, there, channel)
            grad_feature = load_rows(grad_feature_ptr + edge.to(tl.int64) * CHANNELS, there, channel)
            direction = load_directions(direction_ptr, edge, there, component, COMPONENTS)
            rejected = load_vectors(source_vec_ptr, source, there, component, channel, COMPONENTS, CHANNELS)
            rejected = rejected_part(rejected, direction, component, COMPONENTS, CORRECTED)
            target_vec = load_vector(target_vec_ptr, atom, component, channel, COMPONENTS, CHANNELS)[None, :, :]
            grad_gate = grad_feature * tl.sum(target_vec * rejected, axis=1) * silu_slope(gate_before)
            tl.store(grad_filters_ptr + row + 2 * CHANNELS, grad_gate, mask=there[:, None])
            grad_target_vec += tl.sum((grad_feature * silu(gate_before))[:, None, :] * rejected, axis=0)
    tl.store(grad_query_ptr + atom * CHANNELS + channel, grad_query)
    if target_vec_ptr is not None:
        store_vector(grad_target_vec_ptr, atom, component, channel, grad_target_vec, COMPONENTS, CHANNELS)


@triton.jit
def key_value_gradient(
    source_start_ptr,
    by_source_ptr,
    target_ptr,
    query_ptr,
    target_vec_ptr,
    filters_ptr,
    grad_message_ptr,
    grad_scalar_ptr,
    attention_ptr,
    grad_score_ptr,
    grad_key_value_ptr,
    CHANNELS: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """With respect to keys and values, which are read at the atom where the edges begin."""
    atom, channel, head = tl.program_id(0), tl.arange(0, CHANNELS), tl.arange(0, HEADS)
    WIDTH: tl.constexpr = CHANNELS * (2 if target_vec_ptr is None else 3)
    grad_key = tl.zeros([CHANNELS], tl.float32)
    grad_value = tl.zeros([CHANNELS], tl.float32)
    end = tl.load(source_start_ptr + atom + 1)
    for first in range(tl.load(source_start_ptr + atom), end, BLOCK):
        place = first + tl.arange(0, BLOCK)
        there = place < end
        edge = tl.load(by_source_ptr + place, mask=there, other=0)
        target = tl.load(target_ptr + edge, mask=there, other=0)
        of_edge = edge[:, None] * HEADS + head[None, :]
        attention = tl.load(attention_ptr + of_edge, mask=there[:, None], other=0.0)
        grad_score = tl.load(grad_score_ptr + of_edge, mask=there[:, None], other=0.0)
        scaled_query = load_rows(query_ptr + target * CHANNELS, there, channel)
        scaled_query *= of_channels(grad_score, BLOCK, HEADS, CHANNELS)
        grad_key += tl.sum(scaled_query * silu(load_rows(filters_ptr + edge * WIDTH, there, channel)), axis=0)
        grad_message = load_rows(grad_scalar_ptr + target * CHANNELS, there, channel)
        grad_message += load_rows(grad_message_ptr + edge * CHANNELS, there, channel)
        grad_message *= of_channels(attention, BLOCK, HEADS, CHANNELS)
        grad_value += tl.sum(
            grad_message * silu(load_rows(filters_ptr + edge * WIDTH + CHANNELS, there, channel)), axis=0
        )
    tl.store(grad_key_value_ptr + atom * 2 * CHANNELS + channel, grad_key)
    tl.store(grad_key_value_ptr + atom * 2 * CHANNELS + CHANNELS + channel, grad_value)


@triton.jit
def source_vectors_gradient(
    source_start_ptr,
    by_source_ptr,
    target_ptr,
    direction_ptr,
    envelope_ptr,
    target_vec_ptr,
    filters_ptr,
    gates_ptr,
    grad_vector_ptr,
    grad_feature_ptr,
    grad_vec_ptr,
    grad_source_vec_ptr,
    CHANNELS: tl.constexpr,
    COMPONENTS: tl.constexpr,
    PADDED: tl.constexpr,
    CORRECTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """With respect to the vectors that are read at the atom where the edges begin."""
    atom, channel, component = tl.program_id(0), tl.arange(0, CHANNELS), tl.arange(0, PADDED)
    grad_vec = tl.zeros([PADDED, CHANNELS], tl.float32)
    grad_source_vec = tl.zeros([PADDED, CHANNELS], tl.float32)
    end = tl.load(source_start_ptr + atom + 1)
    for first in range(tl.load(source_start_ptr + atom), end, BLOCK):
        place = first + tl.arange(0, BLOCK)
        there = place < end
        edge = tl.load(by_source_ptr + place, mask=there, other=0)
        target = tl.load(target_ptr + edge, mask=there, other=0)
        gate = open_gate(gates_ptr, envelope_ptr, edge, there, channel, True, False, CHANNELS, CORRECTED)
        grad_vector = load_vectors(grad_vector_ptr, target, there, component, channel, COMPONENTS, CHANNELS)
        grad_vec += tl.sum(grad_vector * gate[:, None, :], axis=0)
        if target_vec_ptr is not None:
            direction = load_directions(direction_ptr, edge, there, component, COMPONENTS)
            rejected = load_vectors(target_vec_ptr, target, there, component, channel, COMPONENTS, CHANNELS)
            rejected = rejected_part(rejected, direction, component, COMPONENTS, CORRECTED)
            gate = silu(load_rows(filters_ptr + edge * 3 * CHANNELS + 2 * CHANNELS, there, channel))
            gate *= load_rows(grad_feature_ptr + edge * CHANNELS, there, channel)
            grad_source_vec += tl.sum(rejected * gate[:, None, :], axis=0)
    store_vector(grad_vec_ptr, atom, component, channel, grad_vec, COMPONENTS, CHANNELS)
    if target_vec_ptr is not None:
        store_vector(grad_source_vec_ptr, atom, component, channel, grad_source_vec, COMPONENTS, CHANNELS)
