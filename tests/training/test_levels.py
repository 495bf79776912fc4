"""What is found at once, alike for all customers: levels before training, and the scatter of counts after it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from retinue.models.clocks import (
    ANCHOR,
    ANCHOR_DAYS,
    WIDTH,
    Clocks,
    J,
    anchor_of,
    expected_orders,
    log_survival,
    neutral_raw,
)
from retinue.models.network import Network
from retinue.sequences.batches import Targets
from retinue.sequences.resident import Resident, resident
from retinue.training.data import judged_parts
from retinue.training.fit import free_clocks, new_network
from retinue.training.levels import settle, settle_shapes
from retinue.training.objective import count_scores
from tests.training.made import small, task

DAYS = torch.tensor(ANCHOR_DAYS, dtype=torch.float64)


def anchored(rate: float) -> tuple[Network, Resident]:
    """An untrained network that corrects a Poisson forecast of this rate for everybody, and what it may learn from."""
    made = task()
    mean = (rate * DAYS).expand(len(made.readouts), -1)
    anchor = anchor_of(-mean, mean, torch.zeros(len(mean), dtype=torch.float64)).numpy()
    seen = replace(made.readouts, anchor=anchor)
    made = replace(made, readouts=seen)
    network = new_network(made, small().model, neutral_raw(0.02, 0.3))
    return network, resident(made.tokens, seen, made.vocabulary, made.season)


def whole_windows(network: Network, data: Resident) -> tuple[Clocks, Targets]:
    """What the network says of all readouts, and what came in their whole windows."""
    network.eval()
    (part,) = judged_parts(data, None, mixed=False)
    assert part.batch.targets is not None
    with torch.no_grad():
        states = network.states_at(part.batch, part.max_len)
        return network.read(states, part.batch), part.batch.targets


def total(clocks: Clocks, targets: Targets) -> Tensor:
    return expected_orders(clocks, targets.horizon[:, -1:]).sum()


@pytest.mark.parametrize("rate", [0.001, 0.5])
def test_a_forecast_far_off_is_at_the_base_s_level_before_the_first_step(rate: float) -> None:
    network, data = anchored(rate)
    clocks, targets = whole_windows(network, data)
    came = targets.orders[:, -1].sum()
    assert not 0.5 < total(clocks, targets) / came < 2
    settle(network, data, small().training, seed=0)
    clocks, targets = whole_windows(network, data)
    assert total(clocks, targets).item() == pytest.approx(came.item(), rel=0.2), "likeliest, not balanced"
    stayed = torch.exp(log_survival(clocks, targets.horizon[:, -1:])).mean()
    assert stayed.item() == pytest.approx((targets.orders[:, -1] == 0).float().mean().item(), abs=0.05)


def test_levels_are_found_where_there_is_no_forecast_to_correct_too() -> None:
    made = task()
    network = new_network(made, small().model, neutral_raw(0.3, 0.1))
    data = resident(made.tokens, made.readouts, made.vocabulary, made.season)
    settle(network, data, small().training, seed=0)
    clocks, targets = whole_windows(network, data)
    assert total(clocks, targets).item() == pytest.approx(targets.orders[:, -1].sum().item(), rel=0.1)


@pytest.mark.parametrize("wrong", [-2.0, 2.0])
def test_the_scatter_of_counts_is_set_and_nothing_else(wrong: float) -> None:
    network, data = anchored(0.02)
    settle(network, data, small().training, seed=0)
    best = count_scores(*whole_windows(network, data)).mean()
    last = network.readout.out[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.bias[2 * J] += wrong
    before, targets = whole_windows(network, data)
    settle_shapes(network, data, mixed=False)
    after, _ = whole_windows(network, data)
    assert count_scores(after, targets).mean() > count_scores(before, targets).mean() + 1e-3
    assert count_scores(after, targets).mean() > best - 5e-3
    for name in ("a_log", "r_log", "value_log_mean", "value_log_shape", "refund_logit"):
        assert torch.equal(getattr(after, name), getattr(before, name)), name


def test_how_many_clocks_are_free_goes_by_the_longest_window() -> None:
    made = task().readouts
    assert free_clocks(made) == 0, "nothing to correct"
    seen = replace(made, anchor=np.zeros((len(made), ANCHOR), np.float32))
    assert free_clocks(seen) == 5, "180 days: clocks up to 90 days, of 3, 6.1, 12.4, 25 and 51"
    assert WIDTH == ANCHOR + 3
