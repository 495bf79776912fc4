"""Schedule, average and steps by worked examples; several processes see what one would."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from retinue.config import Options
from retinue.sequences.resident import Resident, resident
from retinue.training.data import Steps
from retinue.training.ema import WeightAverage
from retinue.training.fit import new_network
from retinue.training.module import Schedule, SequenceModule, Step
from tests.training.made import small, task

NEUTRAL_WIDTH = 28


@pytest.fixture(scope="module")
def data() -> Resident:
    made = task()
    return resident(made.tokens, made.readouts, made.vocabulary, made.season)


def first_steps(
    data: Resident, options: Options, count: int, rank: int = 0, processes: int = 1
) -> list[Step]:
    steps = Steps(data, options.training, options.seed, rank=rank, processes=processes)
    return [step for step, _ in zip(steps, range(count), strict=False)]


def test_learning_rate_rises_then_falls() -> None:
    rate = Schedule(steps=100, warmup_share=0.1)
    assert [rate(0), rate(4), rate(9), rate(10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert rate(55) == pytest.approx(0.02 + 0.98 / 2)
    assert rate(100) == pytest.approx(0.02)
    assert rate(10_000) == pytest.approx(0.02)


def test_average_of_weights_by_hand() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 1.0)
    average = WeightAverage(network, decay=0.15)
    nn.init.constant_(network.weight, 2.0)
    average.update(network)  # decay 1/10
    assert average.weights["weight"].item() == pytest.approx(0.1 * 1 + 0.9 * 2)
    nn.init.constant_(network.weight, 4.0)
    average.update(network)  # 2/11 is more than 0.15
    assert average.weights["weight"].item() == pytest.approx(0.15 * 1.9 + 0.85 * 4)
    with average.worn_by(network):
        assert network.weight.item() == pytest.approx(0.15 * 1.9 + 0.85 * 4)
    assert network.weight.item() == 4.0


def test_every_readout_comes_once_a_pass(data: Resident) -> None:
    options = small(steps=1_000)
    epoch = len(Steps(data, options.training, 0).sampler.epoch(0))
    passes = first_steps(data, options, epoch)  # two buckets a step: two passes
    counted = sum(len(part.batch.at) for step in passes for part in step.parts)
    assert counted == pytest.approx(2 * data.counts.sum(), rel=0.1)
    assert all(step.readouts == sum(len(part.batch.at) for part in step.parts) for step in passes)


def test_steps_start_again_anywhere(data: Resident) -> None:
    options = small()
    whole = first_steps(data, options, 9)
    late = Steps(data, options.training, options.seed, start=7)
    for one, other in zip(whole[7:], late, strict=False):
        assert one.index == other.index
        for a, b in zip(one.parts, other.parts, strict=True):
            assert a.seed == b.seed
            assert torch.equal(a.batch.at, b.batch.at)
            assert a.batch.targets is not None
            assert b.batch.targets is not None
            assert torch.equal(a.batch.targets.horizon, b.batch.targets.horizon)


@pytest.mark.parametrize("processes", [2, 4])
def test_shares_of_a_step_average_to_the_whole(data: Resident, processes: int) -> None:
    options = small(buckets=4)
    torch.manual_seed(0)
    network = new_network(task(), options.model, torch.randn(NEUTRAL_WIDTH))
    module = SequenceModule(network, options.training)

    def gradient(step: Step) -> torch.Tensor:
        network.zero_grad()
        module.training_step(step, 0).backward()  # type: ignore[no-untyped-call]
        return torch.cat([each.grad.flatten() for each in network.parameters() if each.grad is not None])

    whole = gradient(first_steps(data, options, 1)[0])
    shares = [gradient(first_steps(data, options, 1, rank, processes)[0]) for rank in range(processes)]
    torch.testing.assert_close(torch.stack(shares).mean(0), whole, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(shares[0], whole, rtol=1e-2)


def test_padding_is_told(data: Resident) -> None:
    step = first_steps(data, small(), 1)[0]
    tokens = sum(len(part.batch.kind) for part in step.parts)
    padded = sum(part.max_len * (len(part.batch.cu_seqlens) - 1) for part in step.parts)
    assert step.waste == pytest.approx(1 - tokens / padded)
    assert step.tokens == tokens
    assert np.isfinite(step.waste)
