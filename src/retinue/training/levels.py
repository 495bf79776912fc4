"""The few numbers of a network that are alike for all customers, found at once where steps would creep up to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from retinue.models.clocks import Clocks, J, clocks_from
from retinue.models.network import Network
from retinue.options import TrainingOptions
from retinue.sequences.batches import Targets
from retinue.sequences.resident import Resident, lots
from retinue.training.data import judged_parts
from retinue.training.objective import count_scores, readout_sums, term_weights

MOST_READOUTS = 16_384
ITERATIONS = 60
RIDGE = 1e-3  # on what the outputs move away from where they stood, per readout


def settle(network: Network, data: Resident, training: TrainingOptions, seed: int) -> None:
    """Sets the last bias and the power of the shape to those that fit a sample of readouts best, alike for all.

    The levels, the shapes and the share of refunds are a few numbers that thousands of readouts tell well: found
    by L-BFGS at once, they need not be crept up to by steps that small bases have learnt by heart before.

    Args:
        network: untrained, on the device of the data; its outputs are its last bias.
        data: to learn from.
        training: weights of the losses, and horizons.
        seed: of the sample and its horizons.
    """
    assert data.truth is not None
    weights = torch.tensor(term_weights(training)[:-1], device=data.device)
    lot = torch.Generator().manual_seed(seed)
    total = len(data.truth.which)
    rows = torch.randperm(total, generator=lot)[:MOST_READOUTS].to(data.home)
    days = data.truth.random_days(rows, lots(len(rows), training.horizons, lot))
    none = torch.zeros(0, dtype=torch.long, device=data.home)
    targets = data.truth.targets(none, rows, days).to(data.device)
    anchor = data.readouts["anchor"][rows].to(data.device) if network.shape.free_clocks else None
    last = network.readout.out[-1]
    assert isinstance(last, nn.Linear)
    before = last.bias.detach().clone()
    found = [last.bias.detach().clone().requires_grad_(), network.power_raw.detach().clone().requires_grad_()]

    def loss() -> Tensor:
        clocks = clocks_from(
            found[0].expand(len(rows), -1), found[1][0], anchor, network.shape.free_clocks or 1
        )
        ridge = RIDGE * ((found[0] - before).square().sum() + found[1].square().sum())
        told: Tensor = readout_sums(clocks, targets) @ weights / len(rows) + ridge
        return told

    _minimise(loss, found)
    with torch.no_grad():
        last.bias.copy_(found[0])
        network.power_raw.copy_(found[1])


def settle_shapes(network: Network, held: Resident, mixed: bool) -> None:
    """Sets how far counts scatter around their mean to what they do among held-out customers in whole windows.

    The customers that a network has learnt from are nearer to their means than others will be.

    Args:
        network: trained.
        held: held-out readouts.
        mixed: See `Steps`.
    """
    network.eval()
    said: list[Clocks] = []
    seen: list[Targets] = []
    with torch.no_grad():
        for part in judged_parts(held, None, mixed):
            assert part.batch.targets is not None
            states = network.states_at(part.batch, part.max_len)
            said.append(network.read(states, part.batch))
            seen.append(part.batch.targets)
    by = torch.zeros((), device=held.device, requires_grad=True)
    power = network.power_raw.detach().clone().requires_grad_()
    rows = sum(len(each.shape_log) for each in said)

    def loss() -> Tensor:
        sums = [
            count_scores(
                replace(clocks, shape_log=clocks.shape_log + by, shape_power=torch.sigmoid(power[0])), each
            ).sum()
            for clocks, each in zip(said, seen, strict=True)
        ]
        return -torch.stack(sums).sum() / rows + RIDGE * by.square()

    _minimise(loss, [by, power])
    last = network.readout.out[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.bias[2 * J] += by
        network.power_raw.copy_(power)


def _minimise(loss: Callable[[], Tensor], over: list[Tensor]) -> None:
    search = torch.optim.LBFGS(over, max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        found = loss()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    with torch.enable_grad():
        search.step(closure)  # type: ignore[no-untyped-call]
