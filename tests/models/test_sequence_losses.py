"""The losses by hand, by integration and sum, on odd rows; and recovery of known intensities."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import gamma, nbinom, norm
from torch import Tensor

from retinue.models.clocks import (
    TIMESCALES,
    WIDTH,
    Clocks,
    beyond,
    clocks_from,
    expected_orders,
    neutral_raw,
    orders_shape,
    survival,
)
from retinue.models.sequence_losses import (
    LEAST_VALUE,
    next_event_loss,
    next_order_loss,
    orders_loss,
    refund_loss,
    value_loss,
)
from retinue.sequences.batches import Targets

Array = NDArray[np.float64]


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def some_clocks(rows: int, seed: int = 0) -> Clocks:
    draw = torch.Generator().manual_seed(seed)
    return clocks_from(torch.randn(rows, WIDTH, generator=draw, dtype=torch.float64) - 1, row(0.0)[0])


def worth(mean: float, shape: float) -> Clocks:
    """One customer whose orders are Gamma(shape) with this mean."""
    return replace(some_clocks(1), value_log_mean=row(math.log(mean)), value_log_shape=row(math.log(shape)))


def tokens(kind: list[int], gap: list[float], amount: list[float]) -> Targets:
    none, grid = torch.zeros(0), torch.zeros(0, 1)
    return Targets(
        none, none, none, grid, grid, grid, grid, torch.tensor(kind), torch.tensor(gap), torch.tensor(amount)
    )


def gradient_of(loss: Tensor, raw: Tensor) -> Tensor:
    return torch.autograd.grad(loss.sum(), raw)[0]


def test_next_order_is_the_chance_of_its_day() -> None:
    clocks, g = some_clocks(3), row(1, 4, 30)
    at = torch.stack([survival(clocks, (g - 1)[:, None])[:, 0], survival(clocks, g[:, None])[:, 0]])
    said = next_order_loss(clocks, g - 1, g)
    assert said.numpy() == pytest.approx(-(at[0] - at[1]).log().numpy(), rel=1e-10)


def test_chances_of_all_days_and_of_none_add_up() -> None:
    clocks, window = some_clocks(1), 60
    days = torch.arange(1.0, window + 1, dtype=torch.float64)
    before = torch.cat([days - 1, row(window)])
    until = torch.cat([days, row(math.inf)])
    every = Clocks(
        **{
            k: v if k == "shape_power" else v.expand(window + 1, *v.shape[1:])
            for k, v in vars(clocks).items()
        }
    )
    assert (-next_order_loss(every, before, until)).exp().sum().item() == pytest.approx(1.0, rel=1e-12)


def test_window_without_an_order_is_censored_and_a_batch_of_them_is_legal() -> None:
    raw = torch.randn(4, WIDTH, requires_grad=True, generator=torch.Generator().manual_seed(1))
    clocks, window = clocks_from(raw, torch.zeros(())), torch.tensor([0.1, 1, 3, 5])
    said = next_order_loss(clocks, window, torch.full((4,), math.inf))
    stay = survival(clocks, window[:, None])[:, 0]
    assert torch.allclose(said, -stay.log(), rtol=1e-5)
    assert torch.isfinite(gradient_of(said, raw)).all()


def test_rare_orders_keep_their_log_and_slope_in_float32() -> None:
    # a = e^-60 on each clock: the chance of a day is far below the rounding of S.
    raw = torch.full((1, WIDTH), -60.0, requires_grad=True)
    said = next_order_loss(clocks_from(raw, torch.zeros(())), torch.tensor([100.0]), torch.tensor([101.0]))
    wide = clocks_from(raw.detach().double(), row(0.0)[0])
    chance = survival(wide, row(100.0)) * 0 + sum(
        wide.a_log.exp()[0, j] * (math.exp(-100 / t) - math.exp(-101 / t)) for j, t in enumerate(TIMESCALES)
    )
    assert said.item() == pytest.approx(-chance.log().item(), rel=1e-6)
    assert gradient_of(said, raw)[0, :12].sum().item() == pytest.approx(-1.0, rel=1e-4)


def test_order_on_a_closed_day_costs_much_and_breaks_nothing() -> None:
    raw = torch.zeros(2, WIDTH, requires_grad=True)
    clocks, day = clocks_from(raw, torch.zeros(())), torch.tensor([5.0, 5.0])
    said = next_order_loss(clocks, day, torch.tensor([5.0, 6.0]))
    # the day after has 1 - exp(-hazard) of what a thousandth of it has linearly
    assert said[0].item() == pytest.approx(said[1].item() + math.log(1_000), abs=0.5)
    assert torch.isfinite(gradient_of(said, raw)).all()


def test_orders_by_hand() -> None:
    clocks, horizon = some_clocks(2), torch.tensor([[9.0, 90.0], [9.0, 90.0]], dtype=torch.float64)
    orders = torch.tensor([[0.0, 3.0], [1.0, 0.0]], dtype=torch.float64)
    stay, b, shape = (f(clocks, horizon) for f in (survival, beyond, orders_shape))
    p = shape / (shape + b)
    first = (-math.log(stay[0, 0]) - math.log(1 - stay[0, 1]) - nbinom.logpmf(2, shape[0, 1], p[0, 1])) / 2
    second = (-math.log(1 - stay[1, 0]) - nbinom.logpmf(0, shape[1, 0], p[1, 0]) - math.log(stay[1, 1])) / 2
    assert orders_loss(clocks, horizon, orders).tolist() == pytest.approx([first, second], rel=1e-9)


@pytest.mark.parametrize(("mean", "shape"), [(0.05, 0.3), (1.5, 1.0), (40.0, 8.0), (2.0, 1e4)])
def test_value_is_the_gamma_of_the_sum(mean: float, shape: float) -> None:
    n, gross = 3.0, 3.3 * mean
    expected = -gamma.logpdf(gross, n * shape, scale=mean / shape)
    said = value_loss(worth(mean, shape), row(n)[None], row(gross)[None])
    assert said.item() == pytest.approx(expected, rel=1e-9)


def test_density_of_value_integrates_to_one_and_adds_up_order_by_order() -> None:
    clocks = worth(1.5, 2.0)

    def density(n: int, x: float) -> float:
        return math.exp(-value_loss(clocks, row(n)[None], row(x)[None]).item())

    assert quad(lambda x: density(2, x), LEAST_VALUE, 60)[0] == pytest.approx(1.0, abs=1e-5)
    # two orders worth 2.4 in all: the first may be worth anything below that
    both = quad(lambda x: gamma.pdf(x, 2.0, scale=0.75) * density(1, 2.4 - x), 0, 2.4 - LEAST_VALUE)[0]
    assert density(2, 2.4) == pytest.approx(both, rel=1e-3)


def test_windows_without_orders_say_nothing_of_value_and_those_without_money_little() -> None:
    raw = torch.zeros(2, WIDTH, requires_grad=True)
    clocks = clocks_from(raw, torch.zeros(()))
    said = value_loss(clocks, torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [0.0]]))
    slope = gradient_of(said, raw)
    assert said[0].item() == 0
    assert (slope[0] == 0).all()
    assert said[1].item() == pytest.approx(-gamma.logpdf(LEAST_VALUE, 2.0, scale=1.0), rel=1e-5)
    assert slope[1, 25].item() == pytest.approx(2 - LEAST_VALUE, rel=1e-4)  # worth less than was said


def test_loss_of_value_and_of_refunds_is_the_mean_over_horizons() -> None:
    clocks, orders, gross = worth(2.0, 3.0), row(0, 1, 5)[None], row(0.0, 1.7, 12.0)[None]
    apart = [value_loss(clocks, orders[:, [i]], gross[:, [i]]).item() for i in range(3)]
    assert value_loss(clocks, orders, gross).item() == pytest.approx(sum(apart) / 3)
    back = row(0.0, 0.5, 2.0)[None]
    apart = [refund_loss(clocks, gross[:, [i]], back[:, [i]]).item() for i in range(3)]
    assert refund_loss(clocks, gross, back).item() == pytest.approx(sum(apart) / 3)


def test_refunds_by_hand() -> None:
    clocks = replace(some_clocks(1), refund_logit=row(math.log(0.25)))  # a fifth comes back
    # of 4 units one comes back; then 100 units, of which 25, weigh as 20
    for scale, weight in ((1.0, 1.0), (25.0, 0.2)):
        said = refund_loss(clocks, row(4 * scale)[None], row(scale)[None]).item()
        expected = -weight * scale * (math.log(0.2) + 3 * math.log(0.8))
        assert said == pytest.approx(expected, rel=1e-12)
    assert refund_loss(clocks, row(0.0)[None], row(0.0)[None]).item() == 0
    assert refund_loss(clocks, row(0.0)[None], row(2.0)[None]).item() == pytest.approx(-2 * math.log(0.2))


def test_best_refund_share_is_money_back_over_money_spent() -> None:
    gross, refunds = row(1, 8, 0.5, 4)[:, None], row(1, 0, 0, 0.35)[:, None]
    logit = row(0.0, 0.0, 0.0, 0.0).requires_grad_()
    share = row(1.35 / 13.5)
    at_best = replace(some_clocks(4), refund_logit=logit + torch.logit(share))
    assert torch.autograd.grad(refund_loss(at_best, gross, refunds).sum(), logit)[0].sum().item() == (
        pytest.approx(0.0, abs=1e-12)
    )


def test_next_event_by_hand() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], [0.5, 0.0, 0.0], [1.0, 2.0, 3.0]])
    raw_gap = torch.tensor([[1.0, 0.0], [0.0, 0.0], [9.0, 1.0]])
    raw_amount = torch.tensor([[0.0, 0.0], [2.0, 6 * math.atanh(math.log(2) / 6)], [9.0, 1.0]])
    targets = tokens([2, 0, -1], [1.5, math.nan, math.nan], [math.nan, 4.0, math.nan])
    kinds = -torch.log_softmax(logits, -1)
    first = kinds[0, 2].item() - norm.logpdf(1.5, 1.0, 1.0)
    second = kinds[1, 0].item() - norm.logpdf(4.0, 2.0, 2.0)
    said = next_event_loss(logits, raw_gap, raw_amount, targets)
    assert said.tolist() == pytest.approx([first, second, 0.0], rel=1e-6)


def test_unknown_next_events_leave_no_trace_in_the_slopes() -> None:
    kinds, gap, amount = (torch.full((2, n), 0.4, requires_grad=True) for n in (4, 2, 2))
    said = next_event_loss(kinds, gap, amount, tokens([1, -1], [0.3, math.nan], [0.1, math.nan]))
    for slope in torch.autograd.grad(said.sum(), (kinds, gap, amount)):
        assert (slope[1] == 0).all()
        assert (slope[0] != 0).any()
        assert torch.isfinite(slope).all()


def test_losses_take_half_precision_outputs() -> None:
    raw = torch.randn(3, WIDTH).bfloat16().requires_grad_()
    clocks = clocks_from(raw, torch.zeros(()))
    horizon, orders = torch.full((3, 1), 40.0), torch.tensor([[0.0], [1.0], [900.0]])
    said = (
        next_order_loss(clocks, torch.zeros(3), torch.tensor([1.0, 2.0, math.inf]))
        + orders_loss(clocks, horizon, orders)
        + value_loss(clocks, orders, 2 * orders)
        + refund_loss(clocks, 2 * orders, orders / 10)
    )
    assert said.dtype == torch.float32
    assert torch.isfinite(gradient_of(said, raw)).all()


# Recovery: three kinds of customers of known intensities, 400,000 of each, as distinct rows with shares.
WINDOW = 730.0
RATES = np.array([0.012, 0.03, 0.004])
# days in which the intensity falls to a third; never for the second kind
FADES = np.array([210.0, 1e9, 700.0])
SPREADS = np.array([0.0, 0.0, 1.0])  # the third kind's own levels are gamma with a shape of one
CUSTOMERS = 400_000
HORIZONS = (7.0, 14.0, 30.0, 90.0, 365.0, 730.0)


def mass(kind: int, days: Array | float) -> Array:
    """Integral of the intensity of a kind's average customer."""
    return np.asarray(RATES[kind] * FADES[kind] * -np.expm1(-np.asarray(days) / FADES[kind]))


def true_survival(kind: int, days: Array) -> Array:
    return np.exp(-mass(kind, days)) if SPREADS[kind] == 0 else 1 / (1 + mass(kind, days))


def simulated(kind: int, draw: np.random.Generator) -> tuple[Array, Array]:
    """Distinct next orders (before, until, share of customers) and counts (horizon, orders, share), in columns."""
    level = draw.gamma(1.0, 1.0, CUSTOMERS) if SPREADS[kind] else np.ones(CUSTOMERS)
    steps = np.diff(mass(kind, np.array([0.0, *HORIZONS])))
    orders = np.cumsum(draw.poisson(level[:, None] * steps), axis=1)
    # the first order is told to the day, then to ever longer spells
    ends = np.unique(np.geomspace(1, WINDOW, 80).round())
    spell = np.searchsorted(mass(kind, ends), draw.exponential(1.0, CUSTOMERS) / level)
    share = np.bincount(spell, minlength=len(ends) + 1) / CUSTOMERS
    waits = np.stack([np.array([0.0, *ends]), np.array([*ends, np.inf]), share])
    counts = []
    for i, horizon in enumerate(HORIZONS):
        n, times = np.unique(orders[:, i], return_counts=True)
        counts.append(np.stack([np.full(len(n), horizon), n, times / CUSTOMERS]))
    return waits, np.concatenate(counts, axis=1)


def of_kind(clocks: Clocks, kind: Tensor) -> Clocks:
    return Clocks(**{name: x[kind] if x.ndim else x for name, x in vars(clocks).items()})


def fitted(seed: int, steps: int) -> Clocks:
    """The clocks of the three kinds that the two losses like best on simulated customers."""
    draw = np.random.default_rng(seed)
    waits, counts = zip(*(simulated(k, draw) for k in range(3)), strict=True)
    wait_kind, count_kind = (
        torch.cat([torch.full((part.shape[1],), k) for k, part in enumerate(parts)])
        for parts in (waits, counts)
    )
    before, until, wait_share = torch.from_numpy(np.concatenate(waits, axis=1))
    horizon, orders, count_share = torch.from_numpy(np.concatenate(counts, axis=1))[:, :, None]
    raw = neutral_raw(0.02, 0.3).double().repeat(3, 1).requires_grad_()
    power = torch.zeros((), dtype=torch.float64, requires_grad=True)
    search = torch.optim.Adam([raw, power], lr=0.5, betas=(0.9, 0.99))
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(search, steps)
    for _ in range(steps):
        clocks = clocks_from(raw, power)
        waited = next_order_loss(of_kind(clocks, wait_kind), before, until)
        counted = orders_loss(of_kind(clocks, count_kind), horizon, orders)
        search.zero_grad()
        ((waited * wait_share).sum() + (counted * count_share[:, 0]).sum()).backward()
        search.step()
        slower.step()
    return clocks_from(raw.detach(), power.detach())


@pytest.mark.parametrize("seed", [1])
def test_known_intensities_are_recovered(seed: int) -> None:
    clocks, h = fitted(seed, steps=1_400), np.array([7.0, 30.0, 90.0, 365.0])
    for kind in range(3):
        stay = survival(clocks, torch.from_numpy(h))[kind].numpy()
        orders = expected_orders(clocks, torch.from_numpy(h))[kind].numpy()
        exact = true_survival(kind, h)
        told = exact > 1e-3  # less than one in a thousand is not to be learnt from a sample
        assert stay[told] == pytest.approx(exact[told], rel=0.02)
        assert orders == pytest.approx(mass(kind, h), rel=0.02)
