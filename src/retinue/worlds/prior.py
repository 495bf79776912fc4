"""The prior over retailers: worlds with hyperparameters drawn wide, and families that are kept out to be judged on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from enum import Enum
from math import exp, log

import numpy as np

from retinue.worlds.spec import (
    Arrivals,
    Calendar,
    Campaigns,
    Chance,
    Customers,
    Holiday,
    Journeys,
    Law,
    Process,
    Returns,
    Segment,
    Spec,
    Spend,
    Spread,
    Targeting,
)

Lot = np.random.Generator
HISTORY_DAYS = (60.0, 5_475.0)
FUTURE_DAYS = (30.0, 1_100.0)
MOST_ORDERS = 120_000
LAST_DAYS = (date(2005, 1, 1), date(2024, 12, 31))


class Family(Enum):
    """Where a world comes from: the prior itself, or a family that training never sees."""

    prior = "prior"
    contract = "contract"
    two_state = "two_state"
    clumpy = "clumpy"
    collapsing = "collapsing"


HELD_OUT = (Family.contract, Family.two_state, Family.clumpy, Family.collapsing)


@dataclass(frozen=True)
class Drawn:
    """A world to simulate, and where its history ends: `history_days` of `spec.days` lie before the cutoff."""

    spec: Spec
    customers: int
    history_days: int
    family: Family


def draw(lot: Lot, family: Family = Family.prior, most_customers: int = 3_000) -> Drawn:
    """One retailer.

    Histories from two months to fifteen years, futures from one month to three years, mean gaps of a living customer
    from 3 days to 3 years, mean lifetimes from two weeks to 20 years.

    Args:
        lot: source of chance.
        family: prior, or one of `HELD_OUT`.
        most_customers: of the whole world, those who left before its data begin included.
    """
    history = round(_log_uniform(lot, *HISTORY_DAYS))
    future = round(_log_uniform(lot, *FUTURE_DAYS))
    first, last = LAST_DAYS
    end = first + timedelta(days=int(lot.integers((last - first).days + 1)))
    arrivals = _arrivals(lot, history, future)
    spec = Spec(
        process=_process(lot),
        days=history + future,
        last_day=end,
        base="prior",
        customers=_customers(lot, history),
        segments=_segments(lot),
        arrivals=arrivals,
        calendar=_calendar(lot, history, future),
        spend=_spend(lot),
        returns=_returns(lot),
        campaigns=_campaigns(lot) if lot.random() < 0.1 else None,
        journeys=_journeys(lot) if lot.random() < 0.1 else None,
        cutoffs=(),
    )
    if family is not Family.prior:
        spec = outside(lot, spec, family)
    before = arrivals.older_days / (arrivals.older_days + history)
    wanted = round(_log_uniform(lot, 300, 2_000) * (1 + before))
    orders = 1 + spec.customers.rate.mean * spec.days  # of a customer who stays all the time
    customers = max(200, min(most_customers, wanted, round(MOST_ORDERS / orders)))
    return Drawn(spec, customers, history, family)


def outside(lot: Lot, spec: Spec, family: Family) -> Spec:
    """The spec moved into a family that the prior never draws."""
    who = spec.customers
    match family:
        case Family.contract:
            spec.process = Process.bg_bb
            who.period_days = float(lot.choice([7.0, 14.0, 30.0, 90.0]))
            who.buy_chance, who.dropout_chance = _beta(lot, 0.15, 0.9), _beta(lot, 0.02, 0.3)
        case Family.two_state:
            spec.process = Process.two_state
            who.on_days, who.off_days = _log_uniform(lot, 10, 120), _log_uniform(lot, 20, 400)
        case Family.clumpy:
            spec.process = Process.pareto_ggg
            who.regularity = Spread(_log_uniform(lot, 0.2, 0.45), 0.3)
        case Family.collapsing:
            spec.arrivals.rate_drift_yearly = -_log_uniform(lot, 0.4, 1.0)
            spec.arrivals.dropout_drift_yearly = _log_uniform(lot, 0.3, 0.8)
        case _:
            raise ValueError(f"family {family.value} is the prior itself.")
    return spec


def _process(lot: Lot) -> Process:
    names = (Process.pareto_nbd, Process.bg_nbd, Process.mbg_cnbd_k, Process.pareto_ggg)
    return names[int(lot.choice(len(names), p=(0.35, 0.1, 0.2, 0.35)))]


def _customers(lot: Lot, history: int) -> Customers:
    # a shop whose customers come back once in several times its history would have no repeat orders to be read by
    gap = _log_uniform(lot, max(3.0, history / 250), min(1_000.0, 2.5 * history + 30))
    lifetime = _log_uniform(lot, 15, 7_300)
    return Customers(
        rate=Spread(1 / gap, _log_uniform(lot, 0.4, 2.5), _law(lot)),
        dropout=Spread(1 / lifetime, _log_uniform(lot, 0.3, 3.0), _law(lot)),
        dropout_chance=_beta(lot, 0.02, 0.6),
        regularity=Spread(_log_uniform(lot, 0.5, 6.0), lot.choice([0.0, lot.uniform(0, 0.8)])),
        never_churn=float(lot.uniform(0, 0.5)) if lot.random() < 0.3 else 0.0,
        rate_dropout=float(lot.uniform(-0.6, 0.6)) if lot.random() < 0.5 else 0.0,
        rate_spend=float(lot.uniform(-0.4, 0.6)) if lot.random() < 0.5 else 0.0,
    )


def _segments(lot: Lot) -> tuple[Segment, ...]:
    if lot.random() > 0.3:
        return ()
    count = int(lot.integers(2, 5))
    return tuple(
        Segment(
            f"s{i}",
            float(lot.dirichlet([2.0, 2.0])[0]) + 0.05,
            rate=exp(lot.normal(0, 0.6)),
            dropout=exp(lot.normal(0, 0.8)),
            value=exp(lot.normal(0, 0.5)),
        )
        for i in range(count)
    )


def _arrivals(lot: Lot, history: int, future: int) -> Arrivals:
    """Half of the bases are older than their data; a quarter of the others are one cohort."""
    older = round(_log_uniform(lot, 0.2, 3.0) * history) if lot.random() < 0.5 else 0
    cohort = not older and lot.random() < 0.35
    drifts = lot.random() < 0.5
    return Arrivals(
        older_days=min(older, 7_300),
        arrival_days=max(7, round(history * lot.uniform(0.05, 0.6))) if cohort else history + future,
        growth_yearly=float(np.clip(lot.normal(0, 0.4), -1.0, 1.0)),
        seasonal=bool(lot.random() < 0.5),
        rate_drift_yearly=float(np.clip(lot.normal(0, 0.15), -0.35, 0.3)) if drifts else 0.0,
        dropout_drift_yearly=float(np.clip(lot.normal(0, 0.15), -0.3, 0.3)) if drifts else 0.0,
        spend_drift_yearly=float(np.clip(lot.normal(0, 0.06), -0.15, 0.15)) if drifts else 0.0,
    )


def _calendar(lot: Lot, history: int, future: int) -> Calendar:
    weeks: tuple[float, ...] = ()
    if lot.random() < 0.6:
        winter = lot.random() < 0.6  # most shops sell most before Christmas
        peak = (lot.normal(49, 3) if winter else lot.uniform(0, 52)) / 52
        high, second = abs(lot.normal(0, 0.25)), lot.normal(0, 0.08)
        year = np.arange(52) / 52
        wave = high * np.cos(2 * np.pi * (year - peak)) + second * np.cos(4 * np.pi * (year - lot.random()))
        weeks = tuple(np.exp(np.clip(wave, -0.9, 0.9)).tolist())
    weekday: tuple[float, ...] = ()
    if lot.random() < 0.6:
        weekday = tuple(np.exp(lot.normal(0, 0.25, 7)).tolist())
    shifts = lot.random() < 0.12
    return Calendar(
        weeks,
        weekday,
        _holidays(lot) if lot.random() < 0.6 else (),
        trend_yearly=float(np.clip(lot.normal(0, 0.12), -0.3, 0.25)) if lot.random() < 0.4 else 0.0,
        regime_day=round(lot.uniform(0.2, 1.05) * history) if shifts else None,
        regime_rate=exp(lot.normal(0, 0.25)) if shifts else 1.0,
        regime_dropout=exp(lot.normal(0, 0.3)) if shifts else 1.0,
    )


def _holidays(lot: Lot) -> tuple[Holiday, ...]:
    """Gift days of Western shops, each with some lift in some shops."""
    days = [Holiday(12, 23, 1 + _log_uniform(lot, 0.3, 3.0), int(lot.integers(10, 45)))]
    for month, day, most, share in (
        (11, 29, 3.0, 0.5), (2, 14, 1.5, 0.25), (5, 10, 1.2, 0.25), (6, 16, 0.8, 0.15), (4, 8, 1.0, 0.2), (8, 28, 0.8, 0.2),
        (11, 11, 2.0, 0.1), (7, 15, 1.5, 0.1),
    ):  # fmt: skip
        if lot.random() < share:
            days.append(Holiday(month, day, 1 + _log_uniform(lot, 0.1, most), int(lot.integers(3, 21))))
    return tuple(days)


def _spend(lot: Lot) -> Spend:
    return Spend(
        mean=_log_uniform(lot, 3, 300),
        between_cv=_log_uniform(lot, 0.1, 1.5),
        within_cv=_log_uniform(lot, 0.1, 1.3),
        law=_law(lot),
        drift_yearly=float(np.clip(lot.normal(0.02, 0.05), -0.12, 0.15)) if lot.random() < 0.5 else 0.0,
    )


def _returns(lot: Lot) -> Returns:
    if lot.random() < 0.6:
        return Returns()
    return Returns(_log_uniform(lot, 0.01, 0.35), float(lot.uniform(0.4, 1.0)), _log_uniform(lot, 3, 40))


def _campaigns(lot: Lot) -> Campaigns:
    return Campaigns(
        every_days=int(lot.integers(20, 120)),
        first_day=int(lot.integers(5, 60)),
        share=float(lot.uniform(0.2, 0.8)),
        lift=_log_uniform(lot, 0.2, 2.0),
        targeting=list(Targeting)[int(lot.integers(3))],
    )


def _journeys(lot: Lot) -> Journeys:
    return Journeys(
        visits_per_order=_log_uniform(lot, 0.5, 3.0),
        email_days=int(lot.integers(14, 60)),
        tickets_per_order=_log_uniform(lot, 0.01, 0.2),
        reviews_per_order=_log_uniform(lot, 0.01, 0.3),
        lead_days=_log_uniform(lot, 20, 120),
        strength=_log_uniform(lot, 1.5, 6.0),
    )


def _law(lot: Lot) -> Law:
    return Law.gamma if lot.random() < 0.5 else Law.lognormal


def _beta(lot: Lot, low: float, high: float) -> Chance:
    mean, weight = _log_uniform(lot, low, high), _log_uniform(lot, 0.8, 12)
    return Chance(mean * weight, (1 - mean) * weight)


def _log_uniform(lot: Lot, low: float, high: float) -> float:
    return exp(lot.uniform(log(low), log(high)))
