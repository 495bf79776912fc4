"""A running average of weights: what is judged, kept and served in place of the last step's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential average of a network's weights, with decay min(decay, (1 + n)/(10 + n)) at its n-th update.

    The early decay lets the average leave the random start behind.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Starts at the network's weights."""
        self.decay = decay
        self.updates = 0
        self.weights = {name: each.detach().clone() for name, each in network.named_parameters()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Moves the average towards the network."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for name, each in network.named_parameters():
            self.weights[name].lerp_(each.detach(), 1 - decay)

    @contextmanager
    def worn_by(self, network: nn.Module) -> Iterator[None]:
        """The network with the average as its weights, and with its own again afterwards."""
        own = {name: each.detach().clone() for name, each in network.named_parameters()}
        put_on(network, self.weights)
        try:
            yield
        finally:
            put_on(network, own)

    def state(self) -> dict[str, Any]:
        """What `restore` needs: tensors and numbers only."""
        return {"updates": self.updates, "weights": self.weights}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state`, on the device that the weights are on now."""
        self.updates = int(state["updates"])
        for name, each in self.weights.items():
            each.copy_(state["weights"][name])


@torch.no_grad()
def put_on(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copies weights by name into the network's parameters."""
    for name, each in network.named_parameters():
        each.copy_(weights[name])
