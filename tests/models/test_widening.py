"""A wider network says what the narrow one said, and can learn what it could not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from retinue.models.clocks import J, neutral_raw
from retinue.models.network import Network, NetworkShape
from retinue.models.widening import widened
from retinue.sequences.batches import Batch
from tests.models.histories import shake

NARROW = NetworkShape(
    kinds=3,
    code_sizes=(),
    number_edges=torch.linspace(-2, 2, 5)[None],
    feature_edges=torch.linspace(-1, 1, 4).repeat(2, 1),
    width=8,
    context=True,
    free_clocks=J - 1,
)
WIDE = replace(
    NARROW,
    kinds=5,
    code_sizes=(4, 3),
    number_edges=torch.linspace(-2, 2, 5).repeat(2, 1),
    feature_edges=torch.linspace(-1, 1, 4).repeat(5, 1),
)


def batch_of(shape: NetworkShape) -> Batch:
    """Nine tokens of three customers; what only the wide shape sees comes behind the same numbers."""
    lot = torch.Generator().manual_seed(0)
    kinds = torch.tensor([1, 2, 1, 4, 1, 2, 1, 3, 1])
    numbers, features = torch.randn(9, 2, generator=lot), torch.randn(3, 5, generator=lot)
    codes = torch.tensor([[1, 2], [3, 0], [0, 1]]).repeat(3, 1)
    return Batch(
        kind=torch.where(kinds < shape.kinds, kinds, 0),
        codes=codes[:, : len(shape.code_sizes)],
        numbers=numbers[:, : len(shape.number_edges)],
        gaps=torch.rand(9, 3, generator=lot),
        age=torch.rand(9, generator=lot),
        calendar=torch.rand(9, 6, generator=lot),
        cu_seqlens=torch.tensor([0, 4, 7, 9], dtype=torch.int32),
        at=torch.tensor([3, 6, 8]),
        silence=torch.rand(3, 4, generator=lot),
        cutoff_calendar=torch.rand(3, 6, generator=lot),
        features=features[:, : len(shape.feature_edges)],
        base=torch.zeros(3, dtype=torch.long),
        group=torch.zeros(3, dtype=torch.long),
        anchor=torch.randn(3, 2 * J + 1, generator=lot),
    )


def narrow() -> Network:
    torch.manual_seed(0)
    network = shake(Network(NARROW, neutral_raw(0.02, 0.4))).eval()
    with torch.no_grad():
        network.embed.kind.weight[0] = 0  # index 0 is unknown, and says nothing
    return network


def test_it_says_what_it_said_whatever_the_new_inputs_are() -> None:
    network = narrow()
    wide = widened(network, WIDE).eval()
    with torch.no_grad():
        before, events = network(batch_of(NARROW))
        after, more = wide(batch_of(WIDE))
    for name, value in vars(before).items():
        torch.testing.assert_close(getattr(after, name), value, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(more.kind_logits[:, :3], events.kind_logits)
    torch.testing.assert_close(more.gap, events.gap)
    torch.testing.assert_close(more.amount, events.amount)


def test_new_inputs_get_a_gradient() -> None:
    wide = widened(narrow(), WIDE)
    wide(batch_of(WIDE))[0].a_log.sum().backward()
    rows = wide.embed.kind.weight.grad
    assert rows is not None
    assert rows[3:].abs().sum() > 0
    assert wide.readout.aggregates is not None
    assert wide.readout.aggregates.weight.grad[:, 2 * 4 :].abs().sum() > 0  # type: ignore[index]
    assert wide.embed.codes.weight.grad is not None
    assert wide.embed.codes.weight.grad.abs().sum() > 0


def test_a_narrower_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit into"):
        widened(widened(narrow(), WIDE), NARROW)
