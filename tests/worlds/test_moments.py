"""Simulated counts against closed forms, to 1 %."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import gammainc, gammaln, hyp2f1

from retinue.worlds.clock import Array, Clock, clock
from retinue.worlds.lives import Lives, live
from retinue.worlds.people import People, draw
from retinue.worlds.renewal import renewal_masses
from retinue.worlds.spec import Arrivals, Chance, Customers, Process, Segment, Spec, Spread

DAYS = 300
R, ALPHA, S, BETA = 6.0, 240.0, 5.0, 1500.0
A, B = 2.0, 14.0
FOREVER = Customers(rate=Spread(1 / 20), never_churn=1.0)


def lives_of(
    process: Process, customers: Customers, count: int = 60_000, days: int = DAYS
) -> tuple[Lives, People, Clock]:
    spec = Spec(process, days, customers=customers, arrivals=Arrivals(arrival_days=0))
    calendar = clock(spec.calendar, spec.start, 0, days)
    rng = np.random.default_rng(5)
    people = draw(spec, count, calendar, rng)
    return live(spec, people, calendar, rng), people, calendar


def repeats(process: Process, customers: Customers, days: float = DAYS, count: int = 60_000) -> float:
    lives, people, _ = lives_of(process, customers, count)
    return float((lives.orders.day <= days).sum() / len(people) - 1)


@pytest.mark.parametrize("days", [60, 300])
def test_pareto_nbd_expects_what_schmittlein_morrison_and_colombo_say(days: int) -> None:
    who = Customers(rate=Spread.gamma(R, ALPHA), dropout=Spread.gamma(S, BETA))
    closed = R * BETA / (ALPHA * (S - 1)) * (1 - (BETA / (BETA + days)) ** (S - 1))
    assert repeats(Process.pareto_nbd, who, days) == pytest.approx(closed, rel=0.01)


def test_bg_nbd_expects_what_fader_hardie_and_lee_say() -> None:
    who = Customers(rate=Spread.gamma(R, ALPHA), dropout_chance=Chance(A, B))
    z = DAYS / (ALPHA + DAYS)
    closed = (A + B - 1) / (A - 1) * (1 - (1 - z) ** R * hyp2f1(R, B, A + B - 1, z))
    assert repeats(Process.bg_nbd, who) == pytest.approx(closed, rel=0.01)


def test_mbg_nbd_expects_what_batislam_and_others_say() -> None:
    who = Customers(rate=Spread.gamma(R, ALPHA), dropout_chance=Chance(A, B))
    z = DAYS / (ALPHA + DAYS)
    closed = B / (A - 1) * (1 - (1 - z) ** R * hyp2f1(R, B + 1, A + B, z))
    assert repeats(Process.mbg_cnbd_k, who) == pytest.approx(closed, rel=0.01)


def test_never_churning_share_buys_on() -> None:
    who = Customers(rate=Spread.gamma(R, ALPHA), dropout=Spread.gamma(S, BETA), never_churn=0.4)
    leaving = R * BETA / (ALPHA * (S - 1)) * (1 - (BETA / (BETA + DAYS)) ** (S - 1))
    closed = 0.4 * R / ALPHA * DAYS + 0.6 * leaving
    assert repeats(Process.pareto_nbd, who) == pytest.approx(closed, rel=0.01)


def test_bg_bb_expects_what_fader_hardie_and_shang_say() -> None:
    who = Customers(buy_chance=Chance(3.0, 2.0), dropout_chance=Chance(2.0, 20.0), period_days=30)
    n, g, d = 10, 2.0, 20.0
    ratio = np.exp(gammaln(g + d) - gammaln(g + d + n) + gammaln(1 + d + n) - gammaln(1 + d))
    closed = 3 / 5 * d / (g - 1) * (1 - ratio)
    assert repeats(Process.bg_bb, who) == pytest.approx(closed, rel=0.01)


@pytest.mark.parametrize("days", [20, 300])
def test_regular_buyers_follow_the_renewal_function_of_the_erlang(days: int) -> None:
    who = Customers(rate=Spread(1 / 20), regularity=Spread(2.0), never_churn=1.0)
    u = days / 20
    closed = u - 0.25 + 0.25 * np.exp(-4 * u)  # Cox 1962, section 4.2
    assert repeats(Process.pareto_ggg, who, days) == pytest.approx(closed, rel=0.01)


def test_two_state_buyers_are_active_for_their_share_of_time() -> None:
    who = Customers(rate=Spread(1 / 5), never_churn=1.0, on_days=20, off_days=40)
    share, speed = 40 / 60, 1 / 20 + 1 / 40
    on_days = (1 - share) * DAYS + share * (1 - np.exp(-speed * DAYS)) / speed
    assert repeats(Process.two_state, who) == pytest.approx(on_days / 5, rel=0.01)


def test_dropout_at_orders_counts_orders_not_days() -> None:
    """With chance p of loss at every order and regular gaps, lifetime orders are geometric: mean repeats (1 - p)/p."""
    who = Customers(rate=Spread(1 / 2), regularity=Spread(3.0), dropout_chance=Chance(2e6, 8e6))
    lives, people, _ = lives_of(Process.mbg_cnbd_k, who)
    assert len(lives.orders.day) / len(people) - 1 == pytest.approx(4.0, rel=0.01)
    last = lives.orders.last_day(len(people), DAYS)
    assert np.allclose(lives.lost, last)


def test_rate_and_dropout_correlate_as_asked() -> None:
    _, people, _ = lives_of(Process.pareto_nbd, Customers(rate_dropout=-0.6, rate_spend=0.4), 20_000)
    ranks = [np.argsort(np.argsort(x)) for x in (people.rate, people.dropout, people.value)]
    spearman = 6 / np.pi * np.arcsin(np.array([-0.6, 0.4]) / 2)  # of a bivariate normal (Pearson 1907)
    assert np.asarray(np.corrcoef(ranks))[0, 1:] == pytest.approx(spearman, abs=0.02)


def test_contracts_obey_correlation_drift_and_segments_too() -> None:
    who = Customers(buy_chance=Chance(2.0, 8.0), rate_dropout=-0.6, rate_spend=0.4)
    _, people, _ = lives_of(Process.bg_bb, who, 20_000)
    ranks = [np.argsort(np.argsort(x)) for x in (people.buy, people.dropout, people.value)]
    spearman = 6 / np.pi * np.arcsin(np.array([-0.6, 0.4]) / 2)
    assert np.asarray(np.corrcoef(ranks))[0, 1:] == pytest.approx(spearman, abs=0.02)
    spec = Spec(
        Process.bg_bb,
        730,
        customers=Customers(buy_chance=Chance(2.0, 8.0)),
        segments=(Segment("keen", 0.5, rate=1.5), Segment("plain", 0.5)),
        arrivals=Arrivals(rate_drift_yearly=-0.5),
    )
    people = draw(spec, 60_000, clock(spec.calendar, spec.start, 0, 730), np.random.default_rng(5))
    ratio = people.buy[people.segment == 0].mean() / people.buy[people.segment == 1].mean()
    assert ratio == pytest.approx(1.5, rel=0.02)
    late = people.born >= 365.25
    assert people.buy[late].mean() / people.buy[~late].mean() == pytest.approx(np.exp(-0.5), rel=0.03)


def test_marginals_do_not_change_with_correlation() -> None:
    for who in (Customers(), Customers(rate_dropout=0.5, rate_spend=0.5)):
        _, people, _ = lives_of(Process.pareto_nbd, who, 60_000)
        assert people.rate.mean() == pytest.approx(1 / 60, rel=0.01)
        assert people.value.mean() == pytest.approx(40.0, rel=0.01)
        assert people.value.std() / people.value.mean() == pytest.approx(0.6, rel=0.05)


def counted(k: float, u: float, stay: float, stages: float) -> float:
    """Σ stay^(n-1) P(gamma((n-1)k + stages, k) ≤ u): expected orders where `stages` of k are still to run."""
    n = np.arange(1, 400)
    return float((stay ** (n - 1) * gammainc((n - 1) * k + stages, k * u)).sum())


def solved(k: float, since: float, u: float, chance: float) -> tuple[float, float]:
    def leave(t: Array) -> Array:
        return np.full(t.shape, chance)

    masses = renewal_masses(np.array([k]), np.array([since]), np.array([u]), leave)
    return float(masses.orders.sum()), float(masses.silent[0, -1])


@pytest.mark.parametrize("k", [0.4, 1.0, 2.5, 8.0])
@pytest.mark.parametrize("chance", [0.0, 0.2])
@pytest.mark.parametrize("u", [0.3, 5.0, 60.0])
def test_renewal_grid_agrees_with_the_sum_over_orders(k: float, chance: float, u: float) -> None:
    orders, silent = solved(k, 0.0, u, chance)
    assert orders == pytest.approx(counted(k, u, 1 - chance, k), rel=4e-3)
    assert silent == pytest.approx(1 - gammainc(k, k * u), abs=1e-5)


def test_renewal_grid_knows_how_far_a_gap_has_run() -> None:
    """An Erlang-2 gap that has run for s is still in its first stage with odds 1 to 2s."""
    s, u = 0.7, 3.0
    fresh = 1 / (1 + 2 * s)
    closed = fresh * counted(2, u, 1.0, 2) + (1 - fresh) * counted(2, u, 1.0, 1)
    assert solved(2.0, s, u, 0.0)[0] == pytest.approx(closed, rel=1e-3)
