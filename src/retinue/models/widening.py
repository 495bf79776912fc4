"""A pretrained network that learns to see more: new kinds, labels, numbers and features, none of which has a say at first."""

from __future__ import annotations

import torch
from torch import Tensor

from retinue.models.network import Network, NetworkShape

NEXT_EVENT_REST = 4  # rows of the next-event head behind those of the kinds
DERIVED = ("lower", "slope", "offsets", "families")  # buffers that the shape gives


@torch.no_grad()
def widened(network: Network, shape: NetworkShape) -> Network:
    """The network in a wider shape; it says what it said, whatever the new inputs are.

    Weights of new inputs are zero, those of labels start to learn through the projection that the network has.

    Args:
        network: pretrained.
        shape: with the same encoder; kinds, numbers and features may be more, the old ones first and with the same
            edges, as many per column.

    Raises:
        ValueError: the shape is narrower, or of another encoder.
    """
    wide = Network(shape, torch.zeros_like(network.readout.out[-1].bias))  # type: ignore[arg-type]
    had = network.state_dict()
    for name, weight in wide.state_dict().items():
        if name.rsplit(".", 1)[-1] in DERIVED:
            continue
        _put(weight, had[name], name)
    return wide


def _put(wide: Tensor, old: Tensor, name: str) -> None:
    """Copies the old weight into the leading part of the new one, and zeroes the rest."""
    if wide.ndim != old.ndim or any(w < o for w, o in zip(wide.shape, old.shape, strict=True)):
        raise ValueError(f"{name} of shape {tuple(old.shape)} does not fit into {tuple(wide.shape)}.")
    if name.startswith("next_event."):
        kinds = len(old) - NEXT_EVENT_REST
        rest = wide[-NEXT_EVENT_REST:]
        rest.copy_(old[kinds:])
        wide = wide[:-NEXT_EVENT_REST]
        old = old[:kinds]
    part = wide[tuple(slice(size) for size in old.shape)]
    kept = old.clone()
    wide.zero_()
    part.copy_(kept)
