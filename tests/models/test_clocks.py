"""The saturating clocks: what holds of any weights, what a hand or an integral says, and float32."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import nbinom
from torch import Tensor

from retinue.models import clocks as head
from retinue.models.clocks import (
    ANCHOR,
    ANCHOR_DAYS,
    TIMESCALES,
    WIDTH,
    Clocks,
    J,
    anchor_of,
    clocks_from,
    neutral_raw,
)
from retinue.models.log_space import log_negative_binomial, log_one_minus_exp, log_softplus, stirling_rest

TEN_PERCENT = math.log(1.1) / 365
seeds = st.integers(0, 2**31 - 1)
spreads = st.sampled_from([0.5, 3.0, 10.0, 40.0])


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def some_clocks(seed: int, spread: float = 2.0, rows: int = 5) -> Clocks:
    draw = torch.Generator().manual_seed(seed)
    raw = spread * torch.randn(rows, WIDTH, generator=draw, dtype=torch.float64)
    power = torch.randn((), generator=draw, dtype=torch.float64)
    if seed % 2:  # what holds of a network's own clocks holds of those that correct others
        anchor = 3 * torch.randn(rows, ANCHOR, generator=draw, dtype=torch.float64) - 1
        return clocks_from(raw, power, anchor, free=1 + seed % J)
    return clocks_from(raw, power)


def one_clock(a: float, r: float, clock: int, shape: float = 2.0, power: float = 0.0) -> Clocks:
    """One customer with weights on a single clock."""
    weights = torch.full((2, 1, J), -math.inf, dtype=torch.float64)
    weights[0, 0, clock], weights[1, 0, clock] = math.log(a), math.log(r)
    zero = row(0.0)
    return Clocks(weights[0], weights[1], row(math.log(shape)), row(power)[0], zero, zero, zero)


def test_timescales_run_from_three_days_to_ten_years_and_a_century() -> None:
    ratios = np.diff(np.log(TIMESCALES[:11]))
    assert (len(TIMESCALES), WIDTH) == (12, 28)
    assert (TIMESCALES[0], TIMESCALES[10], TIMESCALES[11]) == pytest.approx((3.0, 3_650.0, 36_500.0))
    assert ratios == pytest.approx(np.full(10, ratios[0]))


def test_one_clock_by_hand() -> None:
    # τ = 3 days, a = 2, h = 3 ln 2: φ = ½, so A = 1 and S = 1/e; r = 0.8 gives B = 0.4 · (1/(1 - 1/e) - 1).
    clocks, h = one_clock(2.0, 0.8, clock=0), row(3 * math.log(2))
    some = 1 - math.exp(-1)
    assert head.survival(clocks, h).item() == pytest.approx(math.exp(-1), rel=1e-12)
    assert head.beyond(clocks, h).item() == pytest.approx(0.4 * (1 / some - 1), rel=1e-12)
    assert head.expected_orders(clocks, h).item() == pytest.approx(some + 0.4 * math.exp(-1), rel=1e-12)


def test_raw_weights_are_orders_in_ten_days_on_slow_clocks_and_orders_on_fast_ones() -> None:
    raw = torch.zeros(1, WIDTH, dtype=torch.float64)
    raw[0, 11], raw[0, J] = 1.3, -4.0
    clocks = clocks_from(raw, row(0.0)[0])
    assert clocks.a_log[0, 11].exp().item() == pytest.approx(3_650 * math.log1p(math.exp(1.3)), rel=1e-9)
    assert clocks.r_log[0, 0].exp().item() == pytest.approx(math.log1p(math.exp(-4)), rel=1e-9)
    assert clocks.shape_power.item() == 0.5


def test_shape_does_not_pull_at_the_mean() -> None:
    # For a count of exactly its mean, the score of the mean is zero whatever the shape.
    log_r = torch.zeros(1, requires_grad=True, dtype=torch.float64)
    drawn, h = one_clock(2.0, 300.0, clock=11, shape=0.5, power=0.7), row(800.0)
    clocks = Clocks(**{**vars(drawn), "r_log": drawn.r_log + log_r})
    n = 1 + head.beyond(clocks, h).detach()
    assert torch.autograd.grad(head.log_prob_orders(clocks, h, n).sum(), log_r)[0].item() == pytest.approx(
        0.0, abs=1e-9
    )


def test_poisson_process_is_the_case_of_equal_weights() -> None:
    drawn = some_clocks(3)
    clocks = Clocks(**{**vars(drawn), "r_log": drawn.a_log})
    h = row(0.01, 1, 7, 90, 5_000)
    mass = head.log_hazard_mass(clocks, h).exp()
    assert torch.allclose(head.expected_orders(clocks, h), mass, rtol=1e-11, atol=0)


def test_orders_are_one_plus_negative_binomial() -> None:
    clocks, h = some_clocks(5), row(45.0)
    chance, mean = 1 - head.survival(clocks, h), head.beyond(clocks, h)
    shape = head.orders_shape(clocks, h)
    for n in (1, 2, 7, 40):
        expected = chance.log() + torch.from_numpy(nbinom.logpmf(n - 1, shape, shape / (shape + mean)))
        said = head.log_prob_orders(clocks, h, row(n))
        assert said.numpy() == pytest.approx(expected.numpy(), rel=1e-9, abs=1e-9)


def test_shape_grows_with_the_mean_as_its_power_says() -> None:
    clocks, h = one_clock(2.0, 300.0, clock=11, shape=0.5, power=0.7), row(10, 800)
    b = head.beyond(clocks, h)
    assert head.orders_shape(clocks, h).numpy() == pytest.approx((0.5 * (1 + b) ** 1.4).numpy(), rel=1e-12)


@given(seed=seeds)
def test_chances_of_all_counts_add_up_and_average_to_the_expected_orders(seed: int) -> None:
    clocks, h = some_clocks(seed, spread=1.0), row(20.0)
    n = torch.arange(4_000, dtype=torch.float64)
    chances = head.log_prob_orders(clocks, h, n).exp()
    # shapes down to e^-3 have tails that 4,000 terms hold where few orders are expected
    beyond = head.beyond(clocks, h)
    light = ((beyond < 40 * head.orders_shape(clocks, h)) & (beyond < 400))[:, 0]
    assert chances.sum(-1)[light].numpy() == pytest.approx(1.0, abs=1e-9)
    mean = (chances * n).sum(-1)[light].numpy()
    assert mean == pytest.approx(head.expected_orders(clocks, h)[light, 0].numpy(), rel=1e-8)


@given(seed=seeds, spread=spreads, days=st.lists(st.floats(1e-3, 2e4), min_size=2, max_size=6))
def test_what_holds_of_any_weights(seed: int, spread: float, days: list[float]) -> None:
    clocks, h = some_clocks(seed, spread), row(0.0, *sorted(days))
    stay, orders = head.survival(clocks, h), head.expected_orders(clocks, h)
    assert (stay[:, 0] == 1).all()
    assert (orders[:, 0] == 0).all()
    assert (stay.diff() <= 1e-13).all()
    assert (orders.diff() >= -1e-12 * orders[:, 1:]).all()
    assert (orders >= 1 - stay - 1e-13).all()
    assert (head.beyond(clocks, h).diff() >= -1e-12 * orders[:, 1:]).all()
    assert torch.equal(head.log_prob_orders(clocks, h, torch.zeros(())), head.log_survival(clocks, h))
    discounted = head.discounted_orders(clocks, h, TEN_PERCENT)
    assert (discounted.diff() >= 0).all()
    assert (discounted <= orders * (1 + 1e-12)).all()
    assert (head.discounted_orders(clocks, h, 5 * TEN_PERCENT) <= discounted * (1 + 1e-12)).all()
    assert (head.expected_spend(clocks, h).diff() >= -1e-12 * head.expected_spend(clocks, h)[:, 1:]).all()


@given(seed=seeds, spread=spreads)
def test_half_the_customers_have_ordered_by_the_median_wait(seed: int, spread: float) -> None:
    clocks = some_clocks(seed, spread)
    wait = head.median_wait(clocks)
    late = head.survival(clocks, row(3_650.0))[:, 0] > 0.5
    assert torch.equal(torch.isnan(wait), late)
    at_wait = head.survival(clocks, wait.nan_to_num(1.0)[:, None])[:, 0]
    assert at_wait[~late].numpy() == pytest.approx(0.5, abs=1e-6)


def test_median_wait_by_hand() -> None:
    # A = 2 ln 2 · φ: half of it is reached after τ ln 2.
    clocks = one_clock(2 * math.log(2), 1.0, clock=0)
    assert head.median_wait(clocks).item() == pytest.approx(3 * math.log(2), rel=1e-9)
    # hardly a moment: A = ln 2 after a billionth of a day
    soon = one_clock(math.log(2) / -math.expm1(-1e-9 / 3), 1.0, clock=0)
    assert head.median_wait(soon).item() == pytest.approx(1e-9, rel=1e-5)
    # who returns with a chance of 45 % has none
    assert head.median_wait(one_clock(-math.log(0.55), 1.0, clock=0)).isnan().item()


@pytest.mark.parametrize("seed", range(4))
def test_discounting_is_the_integral(seed: int) -> None:
    clocks = some_clocks(seed, rows=1)

    def orders(t: float) -> float:
        return head.expected_orders(clocks, row(t)).item()

    for h in (180.0, 365.0, 1_095.0):
        # by parts: ∫ e^{-δt} dE = e^{-δh} E(h) + δ ∫ e^{-δt} E dt
        inner = quad(lambda t: math.exp(-TEN_PERCENT * t) * orders(t), 0, h, limit=200, epsrel=1e-7)[0]
        exact = math.exp(-TEN_PERCENT * h) * orders(h) + TEN_PERCENT * inner
        assert head.discounted_orders(clocks, row(h), TEN_PERCENT).item() == pytest.approx(exact, rel=5e-4)


def test_discounting_of_a_fading_poisson_process_is_closed_form() -> None:
    # A clock τ under rate δ becomes τ' = 1/(1/τ + δ) with weight τ'/τ.
    clocks, tau, h = one_clock(40.0, 40.0, clock=11), TIMESCALES[11], 365.0
    faster = 1 / (1 / tau + TEN_PERCENT)
    exact = 40.0 * faster / tau * -math.expm1(-h / faster)
    assert head.discounted_orders(clocks, row(h), TEN_PERCENT).item() == pytest.approx(exact, rel=3e-4)
    plain = head.expected_orders(clocks, row(h)).item()
    assert head.discounted_orders(clocks, row(h), 0.0).item() == pytest.approx(plain, rel=1e-12)


def test_value_and_refunds_by_hand() -> None:
    drawn = one_clock(1.0, 1.0, clock=3)
    said = {
        "value_log_mean": row(math.log(3)),
        "value_log_shape": row(math.log(4)),
        "refund_logit": row(math.log(0.25)),
    }
    clocks = Clocks(**{**vars(drawn), **said})
    assert head.value_mean(clocks).item() == pytest.approx(3.0)
    assert head.value_variance(clocks).item() == pytest.approx(9 / 4)
    assert head.refund_share(clocks).item() == pytest.approx(0.2)
    net = head.expected_orders(clocks, row(50.0)) * 3 * 0.8
    assert head.expected_spend(clocks, row(50.0)).item() == pytest.approx(net.item())


@pytest.mark.parametrize("rows", [slice(0, 1), slice(1, 4), slice(3, 52), slice(100, 301)])
def test_who_else_is_asked_about_changes_no_bit(rows: slice) -> None:
    mean = torch.rand(
        401, len(ANCHOR_DAYS), dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).cumsum(1)
    nothing = torch.zeros(401, dtype=torch.float64)
    whole = head.anchor_of(-mean, 2 * mean, nothing)
    assert torch.equal(head.anchor_of(-mean[rows], 2 * mean[rows], nothing[rows]), whole[rows])
    clocks = clocks_from(torch.zeros(401, WIDTH), torch.zeros(()), whole, 3)
    double = Clocks(**{name: each.double() for name, each in vars(clocks).items()})
    some = Clocks(**{name: each[rows] if each.ndim else each for name, each in vars(double).items()})
    for law in (head.survival, head.expected_orders, partial(head.discounted_orders, daily_rate=TEN_PERCENT)):
        assert torch.equal(law(some, row(7, 90, 365)), law(double, row(7, 90, 365))[rows])
    assert torch.equal(head.median_wait(some), head.median_wait(double)[rows])


def test_nearest_weights_are_the_same_to_the_last_bit_of_float64() -> None:
    """Asked directly: `anchor_of` rounds to float32, which would hide it."""
    lot = torch.Generator().manual_seed(0)
    wanted = torch.rand(401, J - 1, dtype=torch.float64, generator=lot).cumsum(1)
    phase = -torch.expm1(-torch.tensor(ANCHOR_DAYS).double()[:, None] / torch.tensor(TIMESCALES).double())
    whole = head._nearest_weights(wanted, phase)
    for rows in (slice(0, 1), slice(3, 52), slice(100, 301), slice(7, 391)):
        assert torch.equal(head._nearest_weights(wanted[rows], phase), whole[rows])


@pytest.mark.parametrize("shift", [-700.0, 0.0, 700.0])
def test_weights_of_any_size_are_summed_alike_at_horizons_of_all_and_of_each(shift: float) -> None:
    clocks = some_clocks(1)
    far = replace(clocks, a_log=(clocks.a_log + shift).requires_grad_())
    h = row(0.0, 1e-9, 1.0, 90.0, 36_500.0).requires_grad_()
    found, each = head.log_hazard_mass(far, h), head.log_hazard_mass(far, h.expand(5, 5))
    torch.testing.assert_close(found, each, rtol=1e-13, atol=1e-13)
    slopes = [torch.autograd.grad(said[:, 1:].sum(), [far.a_log, h]) for said in (found, each)]
    for one, other in zip(*slopes, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert head.log_hazard_mass(far, h[:0]).shape == (5, 0)


def test_log_softplus_rounds_alike_wherever_a_number_stands() -> None:
    x = 6 * torch.randn(300, 24, generator=torch.Generator().manual_seed(0))
    whole = log_softplus(x)
    for rows in (slice(1, 2), slice(1, 6), slice(10, 31), slice(100, 143)):
        assert torch.equal(log_softplus(x[rows].clone()), whole[rows])


def test_log_softplus_has_the_slopes_of_float64() -> None:
    x = torch.linspace(-20, 20, 4_001)
    slopes = [
        torch.autograd.grad(log_softplus(each).sum(), each)[0]
        for each in (x.requires_grad_(), x.detach().double().requires_grad_())
    ]
    torch.testing.assert_close(slopes[0].double(), slopes[1], rtol=2e-6, atol=0)


def test_horizons_broadcast() -> None:
    clocks, h = some_clocks(1), row(7, 90)
    expected = head.expected_orders(clocks, h)
    assert expected.shape == (5, 2)
    torch.testing.assert_close(head.expected_orders(clocks, h.expand(5, 2)), expected, rtol=1e-13, atol=0)
    assert torch.equal(head.expected_orders(clocks, h[1]), expected[:, 1:])  # whatever else is asked
    assert head.discounted_orders(clocks, h[1], TEN_PERCENT).shape == (5, 1)


@pytest.mark.parametrize("size", [1.0, 30.0, 300.0, 1e4])
def test_float32_agrees_with_float64_and_has_gradients_at_any_size(size: float) -> None:
    draw = torch.Generator().manual_seed(0)
    raw = size * torch.randn(200, WIDTH, generator=draw)
    h, n = torch.tensor([1e-3, 1, 30, 365, 5e4]), torch.tensor([0.0, 1, 3, 40, 3_000])
    wide = clocks_from(raw.double(), row(0.3)[0])
    raw.requires_grad_()
    power = torch.tensor(0.3, requires_grad=True)
    said = head.log_prob_orders(clocks_from(raw, power), h, n)
    expected = head.log_prob_orders(wide, h.double(), n.double())
    assert torch.allclose(said.double(), expected, rtol=2e-4, atol=2e-3)
    said.sum().backward()  # type: ignore[no-untyped-call]
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()
    assert power.grad is not None
    assert torch.isfinite(power.grad)


def test_half_precision_is_widened_first() -> None:
    raw = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(2)).bfloat16()
    half, full = clocks_from(raw, torch.zeros(()).bfloat16()), clocks_from(raw.float(), torch.zeros(()))
    assert half.a_log.dtype == torch.float32
    assert torch.equal(head.expected_orders(half, row(9.0)), head.expected_orders(full, row(9.0)))


def test_other_rows_change_nothing() -> None:
    draw = torch.Generator().manual_seed(4)
    raw, h = torch.randn(6, WIDTH, generator=draw), torch.tensor([7.0, 90.0])
    other = raw.clone()
    other[1:] = 5.0
    one, two = (clocks_from(r, torch.zeros(())) for r in (raw, other))
    assert torch.equal(head.expected_orders(one, h)[0], head.expected_orders(two, h)[0])


@pytest.mark.parametrize(
    ("rate", "gone"), [(1e-4, 0.9), (0.002, 0.6), (0.02, 0.3), (0.2, 0.05), (2.0, 0.0), (0.005, 1.0)]
)
def test_neutral_outputs_say_what_is_true_of_the_base(rate: float, gone: float) -> None:
    raw = neutral_raw(rate, gone, value_mean=1.4, value_shape=2.5, refund_share=0.1)
    clocks, h = clocks_from(raw[None], torch.zeros(())), torch.tensor([1.0, 7, 30, 90, 365])
    assert head.expected_orders(clocks, h)[0].numpy() == pytest.approx(rate * h.numpy(), rel=0.12)
    kept = min(max(gone, 0.01), 0.95)
    stay = kept + (1 - kept) * np.exp(-rate / (1 - kept) * h.numpy())
    assert head.survival(clocks, h)[0].numpy() == pytest.approx(stay, abs=0.1)
    assert head.value_mean(clocks).item() == pytest.approx(1.4, rel=1e-5)
    assert head.value_variance(clocks).item() == pytest.approx(1.4**2 / 2.5, rel=1e-5)
    assert head.refund_share(clocks).item() == pytest.approx(0.1, rel=1e-5)


Exact = Callable[[float], object]


@pytest.mark.parametrize(
    ("ours", "exact", "points"),
    [
        (
            lambda x: log_one_minus_exp(x.log()),
            lambda u: mpmath.log(-mpmath.expm1(-u)),
            (1e-30, 1e-6, 9e-4, 9.2e-4, 0.1, 1.0, 40.0),
        ),
        (log_softplus, lambda x: mpmath.log(mpmath.log1p(mpmath.exp(x))), (-200.0, -10.1, -9.9, 0, 30, 1e6)),
        (
            stirling_rest,
            lambda z: mpmath.loggamma(z) - (z - 0.5) * mpmath.log(z) + z - mpmath.log(2 * mpmath.pi) / 2,
            (1e-8, 0.3, 1.0, 15.9, 16.1, 3e5),
        ),
    ],
    ids=["log_one_minus_exp", "log_softplus", "stirling_rest"],
)
def test_logarithms_against_fifty_digits(
    ours: Callable[[Tensor], Tensor], exact: Exact, points: tuple[float, ...]
) -> None:
    with mpmath.workdps(50):
        expected = [float(str(exact(mpmath.mpf(x)))) for x in points]
    assert ours(row(*points)).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("shape", [1e-4, 0.3, 5.0, 1e5])
@pytest.mark.parametrize("mean", [1e-6, 0.5, 60.0, 3_000.0])
def test_negative_binomial_in_float32_against_fifty_digits(mean: float, shape: float) -> None:
    counts = (0, 1, 2, 35, 3_000)
    log_mean, log_shape = torch.tensor(mean).log(), torch.tensor(shape).log()
    said = log_negative_binomial(torch.tensor(counts, dtype=torch.float32), log_mean, log_shape)
    with mpmath.workdps(50):
        m, s = mpmath.exp(log_mean.item()), mpmath.exp(log_shape.item())
        expected = [
            float(
                mpmath.loggamma(s + k) - mpmath.loggamma(s) - mpmath.loggamma(k + 1)
                + s * mpmath.log(s / (s + m)) + k * mpmath.log(m / (s + m))
            )
            for k in counts
        ]  # fmt: skip
    assert said.tolist() == pytest.approx(expected, rel=2e-5, abs=3e-3)


def test_an_anchor_says_what_the_forecast_said() -> None:
    # Poisson buyers whose rate fades from λ as exp(-t/τ), τ between two clocks and beyond the slowest.
    rate, fade = row(0.002, 0.02, 0.1, 0.5)[:, None], row(200.0, 1e6, 30.0, 5_000.0)[:, None]
    days = torch.tensor(ANCHOR_DAYS, dtype=torch.float64)

    def expected(h: Tensor) -> Tensor:
        return rate * fade * -torch.expm1(-h / fade)

    anchor = anchor_of(-expected(days), expected(days), row(0.0, 0.1, -1.0, 2.0))
    assert anchor.shape == (4, ANCHOR)
    clocks = clocks_from(torch.zeros(4, WIDTH), torch.zeros(()), anchor)
    between = row(2, 7, 30, 90, 200, 400, 700)
    np.testing.assert_allclose(
        head.survival(clocks, between.float()), torch.exp(-expected(between)), atol=0.015
    )
    np.testing.assert_allclose(head.expected_orders(clocks, between.float()), expected(between), rtol=0.05)
    assert head.value_mean(clocks).log().tolist() == pytest.approx([0.0, 0.1, -1.0, 2.0], abs=1e-6)


def test_outputs_move_an_anchor_in_ratio_and_slow_clocks_as_one() -> None:
    lot = torch.Generator().manual_seed(0)
    anchor = torch.randn(3, ANCHOR, generator=lot, dtype=torch.float64)
    raw = torch.zeros(3, WIDTH, dtype=torch.float64)
    still = clocks_from(raw, row(0.0)[0], anchor, free=4)
    assert torch.equal(still.a_log, anchor[:, :J])
    assert torch.equal(still.r_log, anchor[:, J : 2 * J])
    assert torch.equal(still.value_log_mean, anchor[:, 2 * J])
    raw[:, 0], raw[:, 3], raw[:, 4:J], raw[:, J + 3] = 0.2, -0.4, 9.0, 0.1
    moved = clocks_from(raw, row(0.0)[0], anchor, free=4)
    by = (moved.a_log - still.a_log)[0].tolist()
    bounded = [6 * math.tanh(x / 6) for x in (0.2, 0.0, 0.0, -0.4)]
    assert by == pytest.approx(bounded + [bounded[3]] * (J - 4), abs=1e-12), (
        "outputs beyond the free ones are not heard"
    )
    assert (moved.r_log - still.r_log)[0, 3:].tolist() == pytest.approx(
        [6 * math.tanh(0.1 / 6)] * (J - 3), abs=1e-12
    )
    wild = clocks_from(raw + 1e6, row(0.0)[0], anchor, free=4)
    assert ((wild.a_log - still.a_log) <= 6.0 + 1e-9).all(), (
        "no output makes more of a forecast than e^6 of it"
    )
