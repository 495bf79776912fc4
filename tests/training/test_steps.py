"""Schedule, average and steps by worked examples; several processes see what one would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from retinue.options import ModelOptions, Options
from retinue.sequences.resident import Resident, Sampler, resident
from retinue.training.data import TOKENS_PER_BUCKET, Steps, ahead, judged_parts, shared_out
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


def gradient(module: SequenceModule, pieces: list[Step]) -> torch.Tensor:
    """Of one process, after all pieces of its part; as Lightning does it, each over their number."""
    module.zero_grad()
    for index, piece in enumerate(pieces):
        (module.training_step(piece, index) / piece.pieces).backward()  # type: ignore[no-untyped-call]
    return torch.cat([each.grad.flatten() for each in module.parameters() if each.grad is not None])


def module_of(model: ModelOptions, options: Options) -> SequenceModule:
    torch.manual_seed(0)
    return SequenceModule(new_network(task(), model, torch.randn(NEUTRAL_WIDTH)), options.training)


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("mixed", [False, True])
def test_shares_of_a_step_average_to_the_whole(data: Resident, processes: int, mixed: bool) -> None:
    """Buckets that stay whole even keep their dropout."""
    options = small(buckets=3)
    dropout = options.model.dropout if mixed else 0.0
    module = module_of(replace(options.model, dropout=dropout, context=mixed), options)

    def of(rank: int, processes: int) -> torch.Tensor:
        steps = Steps(data, options.training, options.seed, mixed, rank, processes)
        return gradient(module, [next(iter(steps))])

    whole = of(0, 1)
    shares = [of(rank, processes) for rank in range(processes)]
    torch.testing.assert_close(torch.stack(shares).mean(0), whole, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(shares[0], whole, rtol=1e-2)


def test_weights_are_pulled_to_where_they_began(data: Resident) -> None:
    """What the loss says of it has the gradient that is added."""
    options = small()
    module = module_of(options.model, options)
    module.proximity, module.begun = 0.1, [each.detach() + 1.0 for each in module.network.parameters()]
    (step,) = first_steps(data, options, 1)
    free = gradient(module, [step])
    module.on_before_optimizer_step(module.configure_optimizers()["optimizer"])
    weights = [each for each in module.parameters() if each.grad is not None]
    assert len(weights) == len(module.begun), "those that no loss reaches too"
    numbers = sum(each.numel() for each in weights)
    pulled = sum(float(each.grad.double().sum()) for each in weights if each.grad is not None)
    assert pulled == pytest.approx(float(free.double().sum()) - 2 * 0.1 * numbers, rel=1e-4)
    loss, terms = module.terms[0][0], module.terms[0][1:]
    assert float(loss - terms @ module.weights) == pytest.approx(0.1 * numbers, rel=1e-4)


@pytest.mark.parametrize("pieces", [2, 3, 6])
def test_pieces_of_a_step_have_the_gradient_of_the_whole(data: Resident, pieces: int) -> None:
    options = small(buckets=6)
    module = module_of(options.model, options)
    (whole,) = first_steps(data, options, 1)
    expected = gradient(module, [whole])
    steps = iter(Steps(data, options.training, options.seed, pieces=pieces))
    found = [next(steps) for _ in range(pieces)]
    assert [len(piece.parts) for piece in found] == [6 // pieces] * pieces
    assert [piece.is_last for piece in found] == [False] * (pieces - 1) + [True]
    torch.testing.assert_close(gradient(module, found), expected, rtol=1e-4, atol=1e-5)
    one, together = module.terms
    torch.testing.assert_close(together, one)
    assert next(steps).index == 1


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_processes_have_as_much_to_do(processes: int) -> None:
    """Padding included, on lengths of which one in a hundred is above 600, and one is 20,000."""
    lengths = np.random.default_rng(0).lognormal(2.5, 1.7, 6_000).astype(np.int64) + 1
    lengths[0] = 20_000
    sampler = Sampler(lengths, np.full(len(lengths), 3), 1_024, TOKENS_PER_BUCKET * processes)
    buckets = sampler.epoch(0)

    def padded(share: list[tuple[int, np.ndarray[tuple[int], np.dtype[np.int64]]]]) -> int:
        return sum(len(people) * int(lengths[people].max()) for _, people in share)

    uneven = []
    for begin in range(0, len(buckets) // 8 * 8, 8):
        step = buckets[begin : begin + 8]
        shares = shared_out(lengths, step, processes)
        whole = np.concatenate([people for share in shares for _, people in share])
        assert sorted(whole) == sorted(np.concatenate(step))
        assert all(set(people) <= set(step[place]) for share in shares for place, people in share)
        work = np.array([padded(share) for share in shares])
        assert work.max() <= max(1.02 * work.mean(), 20_000), "nobody can have less than the longest history"
        dealt = [padded(list(enumerate(step))[rank::processes]) for rank in range(processes)]
        uneven.append(max(dealt) / np.mean(dealt))
    assert len(uneven) >= 2
    assert max(uneven) > 1.5, "whole buckets dealt out in turn would not have been even"


def test_processes_run_the_network_equally_often(data: Resident) -> None:
    """Buckets of one customer cannot be shared; who has none of it runs one that counts nothing."""
    options = small(readouts=3, buckets=3)
    for processes, pieces in ((2, 1), (4, 2), (8, 5)):
        steps = [
            next(iter(Steps(data, options.training, 0, rank=rank, processes=processes))).parts
            for rank in range(processes)
        ]
        assert len({len(parts) for parts in steps}) == 1
        assert any(part.idle for parts in steps for part in parts)
        cut = iter(Steps(data, options.training, 0, rank=processes - 1, processes=processes, pieces=pieces))
        assert all(next(cut).parts for _ in range(pieces))


@pytest.mark.parametrize("processes", [2, 3])
def test_held_out_readouts_are_looked_at_once_by_all_together(
    data: Resident, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retinue.training.data.INNER_READOUTS", 40)
    told = [list(judged_parts(data, None, False, rank, processes)) for rank in range(processes)]
    assert len({len(parts) for parts in told}) == 1
    counted = [len(part.batch.at) for parts in told for part in parts if not part.idle]
    assert len(counted) > processes
    assert sum(counted) == data.counts.sum()


def test_steps_from_the_host_are_begun_a_step_ahead() -> None:
    begun: list[int] = []

    def steps() -> Iterator[Step]:
        for index in range(4):
            begun.append(index)
            yield Step(index, (), 1.0, 1.0, 0.0)

    seen = []
    for step in ahead(steps(), torch.device("cpu")):
        seen.append(step.index)
        assert begun[-1] == min(step.index + 1, 3)
    assert seen == [0, 1, 2, 3]
    assert not list(ahead(iter(()), torch.device("cpu")))


def test_a_batch_goes_where_it_is_wanted(data: Resident) -> None:
    """From the host, where the data do not fit; the data can be counted and moved as a whole."""
    assert not data.is_far
    far = replace(data, device=torch.device("meta"))
    assert far.is_far
    assert far.home.type == "cpu"
    batch = far.batch(np.arange(3), torch.Generator())
    columns = [*vars(batch).values(), *vars(batch.targets).values()]
    tensors = [column for column in columns if isinstance(column, torch.Tensor)]
    assert len(tensors) > 20
    assert {column.device.type for column in tensors} == {"meta"}
    moved = data.at(torch.device("meta"))
    assert moved.home.type == "meta"
    assert moved.bytes == data.bytes > data.tokens["calendar"].nbytes + data.readouts["features"].nbytes
    assert moved.truth is not None
    assert {
        each.device.type for each in (moved.truth.future.time, moved.truth.start.first, *moved.truth.order)
    } == {"meta"}


def test_padding_is_told(data: Resident) -> None:
    step = first_steps(data, small(), 1)[0]
    tokens = sum(len(part.batch.kind) for part in step.parts)
    padded = sum(part.max_len * (len(part.batch.cu_seqlens) - 1) for part in step.parts)
    assert step.waste == pytest.approx(1 - tokens / padded)
    assert step.tokens == tokens
    assert np.isfinite(step.waste)
