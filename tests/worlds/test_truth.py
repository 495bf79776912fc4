"""What the truth tables promise comes true in every kind of world."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from retinue.schema import (
    ALIVE,
    CUSTOMER_ID,
    CUTOFF,
    EVENT_TIME,
    EXPECTED_ORDERS,
    EXPECTED_SPEND,
    FIRST_ORDER_TIME,
    HORIZON_DAYS,
    INTENSITY,
    LIFETIME_DAYS,
    ORDER_RATE,
    P_CHURN,
    REALISED_ORDERS,
    REALISED_SPEND,
    TREATED,
    TRUTH,
    InputError,
)
from retinue.worlds import Kind, Spec, simulate, spec_of
from retinue.worlds.clock import Array
from retinue.worlds.spec import Arrivals, Calendar, Campaigns, Chance, Customers, Process, Returns, Spread
from tests.worlds import made

KINDS = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
LIMIT = 4.0


def score(surplus: Array) -> float:
    """Mean in standard errors."""
    return float(surplus.mean() / surplus.std() * np.sqrt(len(surplus)))


@KINDS
@pytest.mark.parametrize("horizon_days", made.HORIZONS)
def test_expectations_come_true_on_average(kind: Kind, horizon_days: int) -> None:
    table = made.judged(kind, horizon_days).filter(ALIVE)
    halves = table.sort(EXPECTED_ORDERS, CUSTOMER_ID)
    for part in (table, halves.head(len(table) // 2), halves.tail(len(table) // 2)):
        orders, spend = part[REALISED_ORDERS].to_numpy(), part[REALISED_SPEND].to_numpy()
        assert abs(score(orders - part[EXPECTED_ORDERS].to_numpy())) < LIMIT
        assert abs(score(spend - part[EXPECTED_SPEND].to_numpy())) < LIMIT
        assert abs(score((orders == 0) - part[P_CHURN].to_numpy())) < LIMIT


@KINDS
def test_the_lost_order_no_more(kind: Kind) -> None:
    lost = made.judged(kind, made.HORIZONS[-1]).filter(~pl.col(ALIVE))
    assert len(lost) > 100
    assert lost[REALISED_ORDERS].sum() == lost[EXPECTED_ORDERS].sum() == lost[INTENSITY].sum() == 0
    assert (lost[P_CHURN] == 1).all()


@KINDS
def test_truth_is_coherent(kind: Kind) -> None:
    truth = TRUTH.check(made.world(kind).truth)
    assert (truth[P_CHURN].is_between(0, 1)).all()
    assert (truth[EXPECTED_ORDERS] - (1 - truth[P_CHURN]) >= -1e-3).all()
    near, far = (truth.filter(pl.col(HORIZON_DAYS) == h).sort(CUSTOMER_ID) for h in made.HORIZONS)
    assert near[CUSTOMER_ID].equals(far[CUSTOMER_ID])
    assert (far[EXPECTED_ORDERS] >= near[EXPECTED_ORDERS]).all()
    assert (far[P_CHURN] <= near[P_CHURN] + 1e-12).all()


@KINDS
def test_intensity_is_the_rate_at_which_the_next_orders_come(kind: Kind) -> None:
    """Over a horizon of one day, expected orders are the intensity, but for the season and the day's own losses."""
    spec = spec_of(kind, 200)
    spec.horizons_days, spec.cutoffs = (
        (30 if kind is Kind.bg_bb else 1,),
        (spec.start + timedelta(days=150.5),),
    )
    alive = simulate(spec, 600, 3).truth.filter(ALIVE, pl.col(INTENSITY) > 0)
    if kind is Kind.bg_bb:  # a customer's whole chance falls on one day of its period
        assert alive[EXPECTED_ORDERS].to_numpy() == pytest.approx(30 * alive[INTENSITY].to_numpy())
        return
    assert (alive[EXPECTED_ORDERS] / alive[INTENSITY]).median() == pytest.approx(1.0, abs=0.15)


def test_alive_is_the_lifetime_of_true_customers() -> None:
    world = made.world(Kind.never_churn)
    ends = pl.col(FIRST_ORDER_TIME) + pl.duration(microseconds=pl.col(LIFETIME_DAYS) * 86_400e6)
    joined = world.truth.join(world.customers, on=CUSTOMER_ID)
    alive = joined.select((ends > made.CUTOFF).fill_null(True)).to_series()
    assert alive.equals(joined[ALIVE].rename(alive.name))
    assert world.customers[LIFETIME_DAYS].null_count() / len(world.customers) == pytest.approx(0.3, abs=0.03)


def test_only_those_who_had_come_have_a_row() -> None:
    world = made.world(Kind.pareto_nbd)
    come = world.customers.filter(pl.col(FIRST_ORDER_TIME) <= made.CUTOFF)[CUSTOMER_ID]
    assert set(world.truth[CUSTOMER_ID]) == set(come)
    assert 0 < len(come) < len(world.customers)


def test_pareto_nbd_truth_is_the_closed_form_of_each_customer() -> None:
    """λ/μ (1 - exp(-μ h)) orders, and no order with μ/(λ+μ) + λ/(λ+μ) exp(-(λ+μ) h) (Schmittlein et al. 1987)."""
    spec = Spec(horizons_days=(30, 365), customers=Customers(dropout=Spread(1 / 300)))
    world = simulate(spec, 300, 2)
    table = world.truth.filter(ALIVE).join(world.customers, on=CUSTOMER_ID)
    rate, h, mu = table[ORDER_RATE].to_numpy(), table[HORIZON_DAYS].to_numpy(), 1 / 300
    assert table[EXPECTED_ORDERS].to_numpy() == pytest.approx(rate / mu * -np.expm1(-mu * h), rel=1e-6)
    silent = mu / (rate + mu) + rate / (rate + mu) * np.exp(-(rate + mu) * h)
    assert table[P_CHURN].to_numpy() == pytest.approx(silent, abs=1e-4)


def test_customers_older_than_the_data_leave_no_trace_of_their_past() -> None:
    arrivals = Arrivals(older_days=1_000, arrival_days=0)
    spec = Spec(
        Process.pareto_ggg, 60, customers=Customers(Spread(1 / 10, 0.5), never_churn=1.0), arrivals=arrivals
    )
    world = simulate(spec, 4_000, 1)
    assert world.events[EVENT_TIME].min() >= spec.start  # type: ignore[operator]
    assert (world.customers[FIRST_ORDER_TIME] < spec.start).all()
    assert len(world.events) == pytest.approx(4_000 * 60 / 10, rel=0.02)  # in equilibrium from the first day
    assert world.truth[EXPECTED_ORDERS].sum() == pytest.approx(4_000 * (90 + 180 + 365) / 10, rel=0.02)


def test_cutoffs_outside_the_data_are_refused() -> None:
    with pytest.raises(InputError, match="2023-12-21 lies outside the data"):
        simulate(Spec(days=10, cutoffs=(made.CUTOFF.replace(year=2023, month=12, day=21),)), 5, 1)
    last = datetime(2023, 12, 31, 23, 59, 59, 999_999, UTC)
    assert simulate(Spec(days=10), 5, 1).truth[CUTOFF].unique().to_list() == [last]


STRESSED = (Process.bg_nbd, Process.mbg_cnbd_k, Process.pareto_ggg, Process.two_state, Process.bg_bb)


@pytest.mark.parametrize("process", STRESSED, ids=lambda process: process.name)
def test_campaigns_and_returns_under_way_at_the_cutoff_are_foreseen(process: Process) -> None:
    """A strong, cheap campaign five days before the cutoff and half of all orders paid back: each group on its own."""
    cutoff = Spec(days=200).start + timedelta(days=150)
    who = Customers(Spread(1 / 30, 0.7), Spread(1 / 150, 0.5), Chance(1.0, 4.0), Spread(2.5), period_days=20)
    spec = Spec(
        process,
        200,
        customers=who,
        arrivals=Arrivals(arrival_days=100),
        calendar=Calendar(regime_day=120, regime_rate=1.3, regime_dropout=1.5),
        returns=Returns(0.5, 0.8, 15.0),
        campaigns=Campaigns(1_000, 145, lift=6.0, decay_days=20, discount=0.5),
        cutoffs=(cutoff,),
        horizons_days=(8, 45),
    )
    world = simulate(spec, 5_000, 4)
    for horizon_days in spec.horizons_days:
        table = made.beside(world, cutoff, horizon_days).join(
            world.actions.select(CUSTOMER_ID, TREATED), on=CUSTOMER_ID
        )
        for part in (
            table.filter(pl.col(ALIVE) & pl.col(TREATED)),
            table.filter(pl.col(ALIVE) & ~pl.col(TREATED)),
            table.filter(~pl.col(ALIVE)),
        ):
            spend = part[REALISED_SPEND].to_numpy() - part[EXPECTED_SPEND].to_numpy()
            assert abs(score(spend)) < LIMIT
            if not part[ALIVE].any():
                continue
            orders = part[REALISED_ORDERS].to_numpy()
            assert abs(score(orders - part[EXPECTED_ORDERS].to_numpy())) < LIMIT
            assert abs(score((orders == 0) - part[P_CHURN].to_numpy())) < LIMIT


@KINDS
def test_a_horizon_does_not_hang_on_which_others_are_asked(kind: Kind) -> None:
    spec = spec_of(kind, 150)
    spec.campaigns = Campaigns(every_days=40, lift=4.0)
    alone, among = (simulate(replace(spec, horizons_days=h), 150, 3).truth for h in ((80,), (7, 33, 80)))
    among = among.filter(pl.col(HORIZON_DAYS) == 80)
    for column in (P_CHURN, EXPECTED_ORDERS, EXPECTED_SPEND):
        assert among[column].to_numpy() == pytest.approx(alone[column].to_numpy(), rel=1e-9)
