"""What a step minimises: the losses of models/sequence_losses.py, each as a mean per readout or token, weighted."""

from __future__ import annotations

import torch
from torch import Tensor

from retinue.models.clocks import Clocks
from retinue.models.network import NextEvent
from retinue.models.sequence_losses import (
    next_event_loss,
    next_order_loss,
    orders_loss,
    refund_loss,
    value_loss,
)
from retinue.options import TrainingOptions
from retinue.sequences.batches import Targets

TERMS = ("next_order", "orders", "value", "refunds", "next_event")


def readout_sums(clocks: Clocks, targets: Targets) -> Tensor:
    """All of `TERMS` but the last, each summed over the R readouts, (4,)."""
    rows = (
        next_order_loss(clocks, targets.before, targets.until),
        orders_loss(clocks, targets.horizon, targets.orders),
        value_loss(clocks, targets.orders, targets.gross),
        refund_loss(clocks, targets.gross, targets.refunds),
    )
    return torch.stack([row.sum() for row in rows])


def term_sums(clocks: Clocks, after: NextEvent, targets: Targets) -> Tensor:
    """Each of `TERMS` summed over its rows, (5,): R readouts, and N tokens for the last."""
    events = next_event_loss(after.kind_logits, after.gap, after.amount, targets)
    return torch.cat([readout_sums(clocks, targets), events.sum()[None]])


def term_weights(training: TrainingOptions) -> tuple[float, ...]:
    """The weight of each of `TERMS` in the loss."""
    return (
        1.0,
        training.orders_weight,
        training.value_weight,
        training.refund_weight,
        training.next_event_weight,
    )


def count_scores(clocks: Clocks, targets: Targets) -> Tensor:
    """Log probability of the number of orders in each readout's whole window, (R,); the last horizon is the window."""
    return -orders_loss(clocks, targets.horizon[:, -1:], targets.orders[:, -1:])
