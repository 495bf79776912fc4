"""The sequence forecaster from packed histories to the distribution of the future."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from retinue.accel.processes import one_thread
from retinue.models.clocks import ANCHOR, clocks_from, expected_orders, expected_spend, survival
from retinue.models.network import Network
from retinue.models.sequence_losses import next_event_loss, next_order_loss, orders_loss, value_loss
from retinue.options import Encoder
from retinue.schema import InputError
from retinue.sequences.batches import Batch, Targets
from tests.models.histories import (
    CODE_SIZES,
    FAMILIES,
    KINDS,
    History,
    batch_of,
    history,
    network,
    neutral,
    shake,
    shape,
)

ENCODERS = list(Encoder)
DAYS = torch.tensor([0.0, 1.0, 7.0, 30.0, 90.0, 365.0, 3_650.0])
BASE = [history(1, 4, (1, 3)), history(2, 9, (0, 5, 8)), history(3, 1), history(4, 6)]
ROWS = {0: slice(0, 2), 1: slice(2, 5), 2: slice(5, 6), 3: slice(6, 7)}


def forecast(model: Network, batch: Batch, context: Tensor | None = None) -> Tensor:
    """(R, 14) chances of no order and expected orders at `DAYS`."""
    with torch.no_grad():
        clocks, _ = model(batch, context=context)
        return torch.cat([survival(clocks, DAYS), expected_orders(clocks, DAYS)], 1)


def same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_before_training_everybody_has_the_mean_rate(encoder: Encoder) -> None:
    found = forecast(network(encoder), batch_of(*BASE))
    mean = clocks_from(neutral()[None], torch.zeros(()))
    assert torch.equal(
        found, torch.cat([survival(mean, DAYS), expected_orders(mean, DAYS)], 1).expand_as(found)
    )


@pytest.mark.parametrize("encoder", ENCODERS)
def test_another_customer_changes_no_bit(encoder: Encoder) -> None:
    model = shake(network(encoder))
    other = [replace(BASE[0], tokens=history(11, 4).tokens), *BASE[1:]]
    before, after = forecast(model, batch_of(*BASE)), forecast(model, batch_of(*other))
    assert torch.equal(before[2:], after[2:])
    assert not same(before[:2], after[:2])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_tokens_after_the_cutoff_change_no_bit(encoder: Encoder) -> None:
    model = shake(network(encoder))
    later = {
        name: torch.cat([old[:6], new[6:]])
        for (name, old), new in zip(BASE[1].tokens.items(), history(12, 9).tokens.values(), strict=True)
    }
    changed = [BASE[0], replace(BASE[1], tokens=later), *BASE[2:]]
    before, after = forecast(model, batch_of(*BASE)), forecast(model, batch_of(*changed))
    last = ROWS[1].stop - 1
    untouched = [row for row in range(len(before)) if row != last]
    assert torch.equal(before[untouched], after[untouched])
    assert not same(before[last], after[last])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_order_of_customers_and_padding_change_nothing(encoder: Encoder) -> None:
    model = shake(network(encoder))
    batch = batch_of(*BASE)
    before = forecast(model, batch)
    order = [2, 0, 3, 1]
    moved = torch.cat([before[ROWS[i]] for i in order])
    assert same(forecast(model, batch_of(*(BASE[i] for i in order))), moved)
    with torch.no_grad():
        wider, _ = model(batch, max_len=20)
    assert same(survival(wider, DAYS), before[:, :7])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_input_is_read(encoder: Encoder) -> None:
    """No field of a batch that changes nothing."""
    model, batch = shake(network(encoder)), batch_of(*BASE)
    before = forecast(model, batch)
    for name in ("numbers", "gaps", "age", "calendar", "silence", "cutoff_calendar", "features"):
        changed = replace(batch, **{name: getattr(batch, name) * 0.5 + 0.1})
        assert not same(forecast(model, changed), before), name
    for name in ("kind", "codes"):
        assert not same(forecast(model, replace(batch, **{name: (getattr(batch, name) + 1) % 3})), before), (
            name
        )


def test_null_is_told_from_zero() -> None:
    model, batch = shake(network()), batch_of(*BASE)
    zeros = replace(batch, features=batch.features.nan_to_num(-1e9), numbers=batch.numbers.nan_to_num(-1e9))
    assert not same(forecast(model, zeros), forecast(model, batch))


@pytest.mark.parametrize("free_clocks", [0, 3])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_readouts_are_told_alike_however_many_there_are(encoder: Encoder, free_clocks: int) -> None:
    """To 1e-12: the end of a vector is rounded otherwise than its middle."""
    model = shake(network(encoder, free_clocks=free_clocks))
    batch = batch_of(*(history(i, 3) for i in range(203)))
    batch = replace(batch, anchor=torch.randn(203, ANCHOR, generator=torch.Generator().manual_seed(0)))
    with one_thread(), torch.no_grad():
        states = model.states_at(batch)
        whole = model.read(states, batch)
        for size in (5, 21, 40):
            rows = slice(100, 100 + size)
            columns = ("at", "silence", "cutoff_calendar", "features", "base", "group", "anchor")
            some = replace(batch, **{name: getattr(batch, name)[rows] for name in columns})
            told = model.read(states[rows], some)
            for law in (survival, expected_orders, expected_spend):
                torch.testing.assert_close(
                    law(told, DAYS.double()), law(whole, DAYS.double())[rows], rtol=1e-12, atol=1e-15
                )


def test_a_base_without_features_codes_or_numbers() -> None:
    bare = replace(shape(), code_sizes=(), number_edges=torch.zeros(0, 5), feature_edges=torch.zeros(0, 5))
    model, batch = shake(Network(bare, neutral()).eval()), batch_of(*BASE)
    nothing = replace(
        batch, codes=batch.codes[:, :0], numbers=batch.numbers[:, :0], features=batch.features[:, :0]
    )
    found = forecast(model, nothing)
    assert len({tuple(row) for row in found.tolist()}) == len(found)  # every readout its own


def test_codes_never_seen_change_nothing() -> None:
    """Codes start at zero, and the index of none stays there."""
    model, batch = network(), batch_of(*BASE)
    none = replace(batch, codes=torch.zeros_like(batch.codes))
    with torch.no_grad():
        assert torch.equal(model.embed(batch), model.embed(none))
    shake(model.embed.code_out)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    model.embed(batch).square().sum().backward()
    optimiser.step()
    assert model.embed.codes.weight[1:].count_nonzero() > 0
    assert model.embed.kind.weight[0].count_nonzero() == 0
    assert model.embed.codes.weight[0].count_nonzero() == 0


def test_every_code_of_every_field_has_a_vector_of_its_own() -> None:
    model = shake(network())
    pairs = [(first, 0) for first in range(CODE_SIZES[0])] + [
        (0, second) for second in range(1, CODE_SIZES[1])
    ]
    token = batch_of(history(1, 1))
    with torch.no_grad():
        vectors = [model.embed(replace(token, codes=torch.tensor([pair]))) for pair in pairs]
    assert len({tuple(vector[0].tolist()) for vector in vectors}) == len(pairs)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_half_precision_gives_nearly_the_same(encoder: Encoder) -> None:
    model, batch = shake(network(encoder, context=True)), batch_of(*BASE)
    with torch.autocast("cpu", torch.bfloat16):
        half = forecast(model, batch)
    assert half.dtype is torch.float32
    assert not torch.equal(half, forecast(model, batch))
    torch.testing.assert_close(half[:, :7], forecast(model, batch)[:, :7], rtol=0, atol=0.05)


def test_while_training_whole_families_of_features_are_hidden() -> None:
    torch.manual_seed(0)
    model, features = network(family_dropout=0.5), torch.zeros(400, len(FAMILIES))
    assert not model.readout.visible(features).isnan().any()
    hidden = model.train().readout.visible(features).isnan()
    assert torch.equal(hidden[:, 0], hidden[:, 1])
    assert torch.equal(hidden[:, 3], hidden[:, 4])
    assert not torch.equal(hidden[:, 2], hidden[:, 3])
    assert 0.4 < hidden[:, 5].float().mean() < 0.6


def grouped(seed: int, group: int) -> list[History]:
    return [history(seed + i, 1 + i % 5, group=group) for i in range(40)]


def test_the_base_in_context_stays_within_base_and_cutoff() -> None:
    model = shake(network(context=True))
    mine, theirs, others = grouped(100, 0), grouped(200, 1), grouped(300, 1)
    before, after = forecast(model, batch_of(*mine, *theirs)), forecast(model, batch_of(*mine, *others))
    assert same(before[:40], after[:40])
    assert not same(before[40:], after[40:])
    alone = forecast(model, batch_of(mine[0]))
    assert not same(alone, before[:1])  # read against the base, not by itself


def test_the_order_of_the_context_does_not_matter_and_another_sample_hardly() -> None:
    model = shake(network(context=True))
    mine = grouped(100, 0)
    before = forecast(model, batch_of(*mine))
    assert same(forecast(model, batch_of(*mine[::-1])).flip(0), before)
    twice = forecast(model, batch_of(*mine, *mine))
    assert same(twice[:40], before)


def test_a_kept_context_makes_a_forecast_its_own() -> None:
    """Scored alone against the summary of the whole base, a customer gets the forecast of the whole batch."""
    model = shake(network(context=True))
    mine = grouped(100, 0)
    with torch.no_grad():
        context = model.summarise(model.states_at(batch_of(*mine)), batch_of(*mine))
    assert len(context) == 1  # of one group, not of as many as there are readouts
    alone = torch.cat([forecast(model, batch_of(customer), context) for customer in mine[:5]])
    assert same(alone, forecast(model, batch_of(*mine))[:5])


def test_context_needs_groups() -> None:
    batch = replace(batch_of(*BASE), group=None)
    with pytest.raises(InputError, match=r"group must number the \(base, cutoff\)"):
        forecast(network(context=True), batch)
    assert forecast(network(), batch).shape == (7, 14)


def test_shapes_that_cannot_be() -> None:
    with pytest.raises(InputError, match="even whole number, not 16 / 5"):
        shape(Encoder.transformer, heads=5)
    with pytest.raises(InputError, match="family of each of the 6 features, not of 2"):
        shape(families=(0, 1), family_dropout=0.2)


@given(seed=st.integers(0, 10_000), length=st.integers(1, 30), encoder=st.sampled_from(ENCODERS))
@settings(max_examples=10)
def test_invariants_on_random_weights_and_histories(seed: int, length: int, encoder: Encoder) -> None:
    found = forecast(shake(network(encoder), seed), batch_of(history(seed, length), *BASE))
    stay, orders = found[:, :7], found[:, 7:]
    assert (stay[:, 0] == 1).all()
    assert (orders[:, 0] == 0).all()
    assert (stay.diff(dim=1) <= 0).all()
    assert (orders.diff(dim=1) >= 0).all()
    assert (orders >= (1 - stay) * (1 - 1e-6)).all()


def future(batch: Batch, until: Tensor, window: float) -> Targets:
    """Targets with one horizon, the window, and an order in it where `until` is finite."""
    rows, tokens = len(batch.at), len(batch.kind)
    came = until.isfinite().float()[:, None]
    whole = torch.full((rows,), window)
    return Targets(
        window=whole,
        before=torch.where(until.isfinite(), until - 1, whole),
        until=until,
        horizon=whole[:, None],
        orders=came,
        gross=came,
        refunds=torch.zeros(rows, 1),
        next_kind=torch.randint(0, KINDS, (tokens,), generator=torch.Generator().manual_seed(0)),
        next_gap=torch.ones(tokens),
        next_amount=torch.zeros(tokens),
    )


def loss_of(model: Network, batch: Batch, targets: Targets) -> Tensor:
    clocks, after = model(batch)
    order = next_order_loss(clocks, targets.before, targets.until)
    counts = orders_loss(clocks, targets.horizon, targets.orders)
    values = value_loss(clocks, targets.orders, targets.gross)
    event = next_event_loss(after.kind_logits, after.gap, after.amount, targets)
    total: Tensor = (order + counts + values).mean() + event.mean()
    return total


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("context", [False, True])
def test_every_weight_learns(encoder: Encoder, context: bool) -> None:
    model, batch = shake(network(encoder, context=context)), batch_of(*BASE)
    targets = future(batch, torch.tensor([3.0, torch.inf, 20.0, torch.inf, 5.0, 1.0, torch.inf]), 30.0)
    loss_of(model, batch, targets).backward()  # type: ignore[no-untyped-call]
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.count_nonzero()]
    assert idle == []


def stepped(rows: int, seed: int) -> tuple[Batch, Tensor]:
    """Customers of one token whose next order hangs on a step in each of two features together, and who orders."""
    values = torch.rand(rows, len(FAMILIES), generator=torch.Generator().manual_seed(seed))
    customers = [history(10_000 * seed + i, 1) for i in range(rows)]
    return replace(batch_of(*customers), features=values), (values[:, 0] > 0.3) ^ (values[:, 1] > 0.5)


def test_features_are_learnt_as_a_tree_would() -> None:
    """A sum of functions of one feature each is right in two cases of three at most; other customers tell."""
    (batch, ordering), (others, others_ordering) = stepped(600, 1), stepped(400, 2)
    twelfths = torch.linspace(0, 1, 13).expand(len(FAMILIES), 13).clone()
    torch.manual_seed(0)
    model = Network(replace(shape(layers=1), feature_edges=twelfths), neutral()).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    targets = future(batch, torch.where(ordering, 5.0, torch.inf), 30.0)
    for _ in range(40):
        optimiser.zero_grad()
        loss = next_order_loss(model(batch)[0], targets.before, targets.until).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        said = survival(model.eval()(others)[0], torch.tensor(30.0))[:, 0] < 0.5
    assert (said == others_ordering).float().mean() > 0.8
