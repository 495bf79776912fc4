"""The stream of simulated bases: the same for the same seed and number, wherever it starts and whoever makes it."""

from __future__ import annotations

import copy
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from retinue.models.clocks import ANCHOR, ANCHOR_DAYS
from retinue.options import TrainingOptions
from retinue.pretraining.pretrained import Pretrained
from retinue.pretraining.reading import READOUT_NAMES
from retinue.pretraining.stream import WorldStream, sampled, simulated_base, together
from retinue.sequences.batches import Batch
from retinue.training.module import SequenceModule, Step
from retinue.worlds.prior import HELD_OUT, Family, draw, outside
from retinue.worlds.spec import Process

TENSORS = [field.name for field in fields(Batch) if field.name != "targets"]


def stream_of(tiny: Pretrained) -> WorldStream:
    made = WorldStream(tiny.law, tiny.trained.vocabulary, 3, 24, 5)
    made.steps = 6
    return made


def assert_same(one: Batch, other: Batch) -> None:
    for name in TENSORS:
        torch.testing.assert_close(getattr(one, name), getattr(other, name), equal_nan=True, rtol=0, atol=0)


def test_a_step_does_not_depend_on_where_the_stream_began(tiny: Pretrained) -> None:
    steps = list(stream_of(tiny))
    assert [step.index for step in steps] == list(range(6))
    later = stream_of(tiny)
    later.start = 4
    for one, other in zip(steps[4:], later, strict=True):
        assert_same(one.parts[0].batch, other.parts[0].batch)
    other_seed = WorldStream(tiny.law, tiny.trained.vocabulary, 3, 24, 6)
    assert len(other_seed.step(4).parts[0].batch.kind) != len(steps[4].parts[0].batch.kind)


def test_two_processes_share_the_bases_of_a_step(tiny: Pretrained) -> None:
    whole = stream_of(tiny).step(2).parts[0].batch
    parts = []
    for rank in range(2):
        mine = stream_of(tiny)
        mine.rank, mine.processes = rank, 2
        parts.append(mine.step(2).parts[0].batch)
    assert sum(len(part.at) for part in parts) == len(whole.at)
    assert int(whole.group.max()) == 2  # type: ignore[union-attr]
    for base in range(3):
        part, place = parts[base % 2], base // 2
        torch.testing.assert_close(
            part.features[part.group == place],
            whole.features[whole.group == base],
            equal_nan=True,
            rtol=0,
            atol=0,
        )


def test_shares_of_a_step_average_to_the_whole(tiny: Pretrained) -> None:
    """Each process knows its own rows only, and divides by the mean over processes."""
    network = copy.deepcopy(tiny.trained.network)
    module = SequenceModule(network.eval(), TrainingOptions(), own_rows=True)

    def gradient(step: Step, rows: list[float]) -> torch.Tensor:
        def told(own: torch.Tensor, reduce_op: str) -> torch.Tensor:
            assert reduce_op == "mean"
            assert own.tolist() == [step.readouts] * 4 + [step.tokens]
            return torch.tensor(rows)

        module._trainer = SimpleNamespace(strategy=SimpleNamespace(reduce=told))  # type: ignore[assignment]
        module.zero_grad()
        module.training_step(step, 0).backward()  # type: ignore[no-untyped-call]
        return torch.cat([each.grad.flatten() for each in module.parameters() if each.grad is not None])

    whole = stream_of(tiny).step(2)
    shares = []
    for rank in range(2):
        mine = stream_of(tiny)
        mine.rank, mine.processes = rank, 2
        shares.append(mine.step(2))
    assert shares[0].readouts != shares[1].readouts
    half = [whole.readouts / 2] * 4 + [whole.tokens / 2]
    found = torch.stack([gradient(share, half) for share in shares]).mean(0)
    expected = gradient(whole, [2 * rows for rows in half])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_pieces_of_a_step_hold_its_bases(tiny: Pretrained) -> None:
    whole, cut = stream_of(tiny), stream_of(tiny)
    cut.pieces = 2
    one, two = whole.step(3), cut.step(3)
    assert [int(part.batch.base.max()) + 1 for part in two.parts] == [2, 1]
    assert (two.readouts, two.tokens) == (one.readouts, one.tokens)
    assert two.parts[0].seed == one.parts[0].seed != two.parts[1].seed


def test_bases_side_by_side_are_read_as_they_are_alone(tiny: Pretrained) -> None:
    lots = [np.random.default_rng(i) for i in range(3)]
    alone = [
        sampled(simulated_base((1, i)), tiny.law, tiny.trained.vocabulary, 20, lots[i]) for i in range(3)
    ]
    batch = together(alone)
    with torch.no_grad():
        said = tiny.trained.network(batch)[0].a_log
        each = [tiny.trained.network(one)[0].a_log for one in alone]
    torch.testing.assert_close(said, torch.cat(each), rtol=1e-4, atol=1e-5)
    assert batch.features.shape[1] == len(READOUT_NAMES)
    assert batch.anchor is not None
    assert batch.anchor.shape[1] == ANCHOR
    assert not torch.isnan(batch.anchor).any()
    assert len(ANCHOR_DAYS) == 11


def test_what_came_after_the_cutoff_is_in_the_targets_alone(tiny: Pretrained) -> None:
    base = simulated_base((1, 7))
    lot = np.random.default_rng(0)
    batch = sampled(base, tiny.law, tiny.trained.vocabulary, 40, lot)
    assert batch.targets is not None
    assert batch.targets.orders.sum() > 0
    known = base.tokens.available <= int(base.cutoff.timestamp() * 1e6)
    assert known.sum() < len(known)
    assert len(batch.kind) < len(known)


@pytest.mark.parametrize("family", list(Family))
def test_every_family_can_be_simulated(family: Family) -> None:
    base = simulated_base((3, 1), family)
    assert len(base.behaviour.customer) >= 60
    assert base.end > base.cutoff


def test_the_prior_is_wide_and_keeps_its_hands_off_the_held_out_families() -> None:
    lot = np.random.default_rng(0)
    drawn = [draw(lot) for _ in range(400)]
    history = np.array([each.history_days for each in drawn])
    assert history.min() < 75
    assert history.max() > 4_500
    older = np.mean([each.spec.arrivals.older_days > 0 for each in drawn])
    assert 0.4 < older < 0.6
    assert {each.spec.process for each in drawn}.isdisjoint({Process.two_state, Process.bg_bb})
    gaps = np.array([1 / each.spec.customers.rate.mean for each in drawn])
    assert gaps.min() < 5
    assert gaps.max() > 600
    for family in HELD_OUT:
        assert draw(lot, family).family is family
    with pytest.raises(ValueError, match="prior itself"):
        outside(lot, drawn[0].spec, Family.prior)
