"""The named worlds: ready specs, each of which shows one thing; `retail` has them all at once."""

from __future__ import annotations

from enum import Enum
from math import cos, pi
from typing import assert_never

from retinue.worlds.spec import (
    Arrivals,
    Calendar,
    Campaigns,
    Chance,
    Customers,
    Holiday,
    Identity,
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


class Kind(Enum):
    """What `retinue worlds kind=…` can make."""

    pareto_nbd = "pareto_nbd"
    bg_nbd = "bg_nbd"
    mbg_cnbd_k = "mbg_cnbd_k"
    pareto_ggg = "pareto_ggg"
    bg_bb = "bg_bb"
    two_state = "two_state"
    never_churn = "never_churn"
    segments = "segments"
    seasonal = "seasonal"
    drifting = "drifting"
    promotions = "promotions"
    rich = "rich"
    identity = "identity"
    retail = "retail"


def spec_of(kind: Kind, days: int = 730) -> Spec:  # noqa: PLR0911, PLR0912
    """The spec of a named world whose data cover so many days; change what you like before `simulate`."""
    match kind:
        case Kind.pareto_nbd:
            return Spec(days=days)
        case Kind.bg_nbd:
            return Spec(Process.bg_nbd, days)
        case Kind.mbg_cnbd_k:
            return Spec(Process.mbg_cnbd_k, days, customers=Customers(regularity=Spread(2.0)))
        case Kind.pareto_ggg:
            return Spec(Process.pareto_ggg, days, customers=Customers(regularity=Spread(2.0, 0.8)))
        case Kind.bg_bb:
            return Spec(Process.bg_bb, days, customers=Customers(dropout_chance=Chance(1.0, 12.0)))
        case Kind.two_state:
            return Spec(Process.two_state, days, customers=Customers(rate=Spread(1 / 15, 0.8)))
        case Kind.never_churn:
            return Spec(days=days, customers=Customers(never_churn=0.3))
        case Kind.segments:
            return Spec(days=days, segments=_segments(), details=True)
        case Kind.seasonal:
            return Spec(days=days, calendar=_seasons(), arrivals=Arrivals(seasonal=True))
        case Kind.drifting:
            return _drifting(days)
        case Kind.promotions:
            return Spec(days=days, campaigns=Campaigns(targeting=Targeting.both), details=True)
        case Kind.rich:
            return Spec(days=days, journeys=Journeys(), returns=Returns(0.06), details=True)
        case Kind.identity:
            return Spec(days=days, identity=Identity(), returns=Returns(0.05))
        case Kind.retail:
            return _retail(days)
    assert_never(kind)


def _segments() -> tuple[Segment, ...]:
    return (
        Segment("regulars", 0.25, rate=2.5, dropout=0.4, value=0.8),
        Segment("big_baskets", 0.15, rate=0.7, dropout=0.7, value=3.0),
        Segment("passers_by", 0.35, rate=0.5, dropout=3.0, value=0.7),
        Segment("ordinary", 0.25),
    )


def _seasons() -> Calendar:
    """More in winter than in summer, Saturdays above Mondays, and the gift days of a Western shop."""
    weeks = tuple(1 + 0.3 * cos(2 * pi * (week - 48) / 52) for week in range(52))
    holidays = (Holiday(2, 14, 1.5, 7), Holiday(11, 29, 3.0, 3), Holiday(12, 23, 2.5, 21))
    return Calendar(weeks, (0.85, 0.9, 0.95, 1.0, 1.15, 1.25, 0.9), holidays)


def _drifting(days: int) -> Spec:
    arrivals = Arrivals(
        growth_yearly=0.3, rate_drift_yearly=-0.15, dropout_drift_yearly=0.2, spend_drift_yearly=0.05
    )
    calendar = Calendar(trend_yearly=-0.1, regime_day=int(days * 0.6), regime_rate=0.8, regime_dropout=1.5)
    return Spec(days=days, arrivals=arrivals, calendar=calendar, spend=Spend(drift_yearly=0.08))


def _retail(days: int) -> Spec:
    """Customers older than the data, log-normal differences, correlations, seasons, drift, all kinds of events."""
    customers = Customers(
        rate=Spread(1 / 60, 1.2, Law.lognormal),
        dropout=Spread(1 / 600, 1.0, Law.lognormal),
        regularity=Spread(1.5, 0.6),
        never_churn=0.1,
        rate_dropout=-0.3,
        rate_spend=0.2,
    )
    seasons = _seasons()
    seasons.trend_yearly = 0.05
    return Spec(
        Process.pareto_ggg,
        days,
        customers=customers,
        segments=_segments(),
        arrivals=Arrivals(older_days=730, growth_yearly=0.1, seasonal=True, rate_drift_yearly=-0.05),
        calendar=seasons,
        spend=Spend(law=Law.lognormal, drift_yearly=0.03),
        returns=Returns(0.06, 0.9),
        campaigns=Campaigns(targeting=Targeting.both),
        journeys=Journeys(),
        identity=Identity(guest_share=0.05),
        details=True,
    )
