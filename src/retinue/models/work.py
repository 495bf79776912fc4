"""How many floating point operations a network takes, so that its speed can be set beside the machine's."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from torch import nn

from retinue.models.encoders import GRUEncoder, TransformerEncoder
from retinue.models.network import CALENDAR, Network

BACKWARD = 2.0  # a product's two gradients are two products of its size


def forward_operations(network: Network, lengths: npt.NDArray[np.int64], readouts: int) -> float:
    """Multiplications and additions of the matrix products of one forward pass, heads included.

    Sums, gates, look-ups and normalisations are not counted, nor is padding, so that waste shows as a low share
    of the machine's rate.

    Args:
        network: any.
        lengths: (C,) tokens of each customer.
        readouts: how many there are.
    """
    per_token = _weights(network.embed.plain, network.embed.code_out, network.encoder, network.next_event)
    operations = 2.0 * per_token * float(lengths.sum()) + 2.0 * _weights(network.readout) * readouts
    if isinstance(network.encoder, TransformerEncoder):
        pairs = float((lengths * (lengths + 1) // 2).sum())  # of a query and a key not after it
        operations += 4.0 * network.shape.width * len(network.encoder.blocks) * pairs
    return operations


def scoring_operations(network: Network, lengths: npt.NDArray[np.int64], readouts: int) -> float:
    """Those that a forecast on a CPU needs: no next event, and of a GRU's embedding and first input only the calendar's.

    Arguments as `forward_operations`.
    """
    left_out = _weights(network.next_event)
    if isinstance(network.encoder, GRUEncoder):
        gates = network.encoder.gru.all_weights[0][0]
        left_out += (
            _weights(network.embed.plain, network.embed.code_out) + gates.numel() - CALENDAR * len(gates)
        )
    return forward_operations(network, lengths, readouts) - 2.0 * left_out * float(lengths.sum())


def training_operations(network: Network, lengths: npt.NDArray[np.int64], readouts: int) -> float:
    """Those of a forward and a backward pass."""
    return (1 + BACKWARD) * forward_operations(network, lengths, readouts)


def _weights(*modules: nn.Module) -> int:
    """Entries of the matrices that rows are multiplied with."""
    return sum(weight.numel() for weight in _matrices(modules))


def _matrices(modules: Iterable[nn.Module]) -> Iterable[nn.Parameter]:
    return (weight for module in modules for weight in module.parameters() if weight.ndim == 2)
