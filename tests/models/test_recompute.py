"""What is made again in the backward pass: the same gradients, and less kept until then."""

from __future__ import annotations

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from retinue.models.network import Network
from retinue.options import Encoder
from tests.models.histories import batch_of, history, network, shake


def gradient(net: Network) -> tuple[torch.Tensor, int]:
    """Of a sum of outputs with dropout, and how many numbers were kept for it."""
    batch = batch_of(*(history(seed, length) for seed, length in enumerate((40, 38, 35, 30))))
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    net.train()
    net.zero_grad()
    torch.manual_seed(5)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        states = net.states(batch)
    torch.autograd.backward((states * torch.linspace(-1, 1, states.shape[1])).sum())
    found = [each.grad.flatten() for each in net.parameters() if each.grad is not None]
    return torch.cat(found), sum(kept.values())


@pytest.mark.parametrize(
    ("kind", "layers", "share"),
    [(Encoder.gru, 1, 0.6), (Encoder.gru, 2, 0.9), (Encoder.transformer, 3, 0.6)],
)
def test_the_same_gradients_from_less(kind: Encoder, layers: int, share: float) -> None:
    """A GRU whose layers have dropout between them is not made again, its embedding is."""
    net = shake(network(kind, width=32, layers=layers, dropout=0.3), 4)
    expected, much = gradient(net)
    net.encoder.recompute = True
    found, little = gradient(net)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert little < share * much


def test_nothing_is_made_again_without_gradients() -> None:
    net = network(Encoder.gru)
    net.encoder.recompute = True
    with torch.no_grad():
        assert not net.states(batch_of(history(0, 5))).requires_grad
