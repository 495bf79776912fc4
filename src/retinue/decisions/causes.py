"""Why a customer is at risk: what the forecast would be, were the evidence of one family that of others just as silent.

For each family of evidence (price, service, quality, …) the features that speak of it are set to those of donors:
other customers with as many orders, silent for as long, last seen as long ago. Only what is worse than the donor's is
replaced, so that many visits are never taken for a lack of them. The fall of the log odds of churn is the family's
part in the risk (occlusion, Zeiler and Fergus 2014, with a conditional reference, Covert et al. 2021).
A silent customer has no recent visits and no opened e-mails either: against the base's typical customer that would
count as lost engagement for everyone who has gone; against customers just as silent it counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit

from retinue.decisions.evidence import sentence
from retinue.features.query import CATALOGUE
from retinue.forecasting.members import churn_readers
from retinue.forecasting.outlook import Predictor
from retinue.forecasting.telling import PART, event_parts, feature_parts
from retinue.schema import (
    CAUSE_STRENGTH,
    CUSTOMER,
    CUSTOMER_ID,
    CUTOFF,
    EVENT_TIME,
    EVENT_TYPE,
    EVIDENCE,
    NAMED_CAUSE,
    REASONS,
)

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

DONORS = 6
LEAST_CELL = 4 * DONORS
NO_REASON = "no reliable reason"


class Family(Enum):
    """What a reason is about."""

    price = "price"
    service = "service"
    quality = "quality"
    engagement = "engagement"
    range = "range"
    life_cycle = "life_cycle"
    trigger = "trigger"


# Which way is worse: 1 for more, -1 for less, 0 for any difference.
SPEAKS: dict[Family, dict[str, int]] = {
    Family.price: {
        "discount_rate": 1, "discount_share": 1, "discount_shift": 1, "price_level": 1, "coupons_redeemed_90d": 1,
        "visits_30d": 1, "visits_trend": 1, "sessions_30d": 1, "searches_30d": 1, "carts_30d": 1, "cart_abandonment": 1,
        "views_per_visit": 1, "email_click_rate": 1,
    },
    Family.service: {
        "tickets_90d": 1, "open_tickets": 1, "unresolved_severe_ticket": 1, "resolution_hours": 1,
        "days_since_last_ticket": -1, "sentiment_mean": -1, "survey_score": -1, "survey_trend": -1,
    },
    Family.quality: {
        "refund_rate_value": 1, "refund_rate_orders": 1, "refund_rate_trend": 1, "refunds_30d": 1, "refunds_90d": 1,
        "refunds_180d": 1, "refund_value_30d": 1, "refund_value_90d": 1, "refund_value_180d": 1,
        "days_since_last_refund": -1, "rating_mean": -1, "reviews_ever": 1, "sentiment_mean": -1,
    },
    Family.engagement: {
        "visits_30d": -1, "visits_180d": -1, "visits_trend": -1, "sessions_30d": -1, "sessions_180d": -1, "logins_30d": -1,
        "logins_180d": -1, "email_open_rate": -1, "email_click_rate": -1, "email_open_trend": -1, "sms_click_rate": -1,
        "push_open_rate": -1, "campaign_response_rate": -1, "usage_trend": -1,
    },
    Family.range: {
        "categories_180d": -1, "products_180d": -1, "basket_diversity": -1, "categories_per_order": -1, "lines_per_order": -1,
        "category_concentration": 1, "top_category_share": 1,
    },
    Family.life_cycle: {"month_concentration": 1, "holiday_season_share": 0},
    Family.trigger: {
        "failed_payments_90d": 1, "failed_payments_ever": 1, "pauses_ever": 1, "downgrades_ever": 1, "days_to_renewal": -1,
    },
}  # fmt: skip
SHARE = (Family.service, Family.quality)  # sentiment speaks of both: each gets its fair part (Shapley 1953)
_KNOWN = {feature.name for feature in CATALOGUE}
assert all(name in _KNOWN for names in SPEAKS.values() for name in names)
# What donors share with a customer, most important first, in so many bins: where cells are small, the last ones go first.
ALIKE = {"T_days": 6, "days_since_last": 6, "frequency": 3, "days_since_last_engagement": 3}
AGES = (15.0, 30.0, 60.0, 120.0, 240.0)  # days; a window of 30 or 180 holds less of who came within it


@dataclass(frozen=True)
class Rules:
    """When a reason counts as reliable; chosen on simulated bases with planted causes and without any.

    Attributes:
        least: smallest fall of the log odds of churn; 1.2 is 3.3 times the odds.
        least_risk: smallest fall of p_churn itself.
        noise: times the spread of the fall between the forecast's own members (seeds).
        lead: times the fall of the family that comes second.
    """

    least: float = 1.2
    least_risk: float = 0.001
    noise: float = 1.5
    lead: float = 1.2


@dataclass(frozen=True)
class Falls:
    """What the families of evidence are worth.

    Attributes:
        families: those that the base has features of.
        risk: (members, rows) log odds of churn as forecast.
        by: (members, families, rows) fall of the log odds once a family's evidence is a donor's, mean over donors.
    """

    families: tuple[Family, ...]
    risk: Array
    by: Array


def reasons(
    predictor: Predictor, buyers: pl.DataFrame, horizon_days: int, rules: Rules | None = None
) -> pl.DataFrame:
    """The `reasons` table: each customer's cause, its strength and its evidence in a sentence.

    Args:
        predictor: a fitted rung; one that reads no features but the order history finds no reasons.
        buyers: features of customers who have ordered, at one cutoff.
        horizon_days: of the churn that is explained.
        rules: when a reason is reliable.

    Returns:
        One row per customer in the order of `buyers`. `cause_strength` is the fall of the log odds of churn once the
        evidence is that of customers just as silent; 0 where the cause is `no reliable reason`.
    """
    falls = occlusion(predictor, buyers, horizon_days)
    named, strength = _named(falls, rules or Rules())
    labels = [*(family.value for family in falls.families), NO_REASON]
    place = np.where(named >= 0, named, len(falls.families))
    cause = pl.Series(NAMED_CAUSE, labels, dtype=pl.String).gather(place)
    told = buyers.select(CUSTOMER_ID, CUTOFF).with_columns(cause, pl.Series(CAUSE_STRENGTH, strength))
    return REASONS.check(
        told.with_columns(_evidence(predictor, buyers, horizon_days, falls.families, named)).select(
            REASONS.schema.names()
        )
    )


def occlusion(predictor: Predictor, buyers: pl.DataFrame, horizon_days: int) -> Falls:
    """By how much the log odds of churn fall when each family's evidence is no worse than a donor's."""
    families = tuple(f for f in Family if _present(buyers, f))
    if not buyers.height:
        return Falls((), np.zeros((1, 0)), np.zeros((1, 0, 0)))
    readers = churn_readers(predictor, buyers, horizon_days)
    risk = np.stack([read(buyers) for read in readers])
    by = np.zeros((len(readers), len(families), buyers.height))
    donors = donors_of(buyers)

    def fall(*of: Family) -> Array:
        after = sum(np.stack([read(one) for read in readers]) for one in _occluded(buyers, of, donors))
        return np.asarray(risk - after / donors.shape[1])

    for place, family in enumerate(families):
        by[:, place] = fall(family)
    if set(SHARE) <= set(families):
        one, other = (families.index(family) for family in SHARE)
        both, gap = fall(*SHARE), by[:, one] - by[:, other]
        by[:, one], by[:, other] = (both + gap) / 2, (both - gap) / 2
    return Falls(families, risk, by)


def _present(buyers: pl.DataFrame, family: Family) -> list[str]:
    return [name for name in SPEAKS[family] if name in buyers.columns]


def _occluded(buyers: pl.DataFrame, of: Sequence[Family], donors: Indices) -> Iterator[pl.DataFrame]:
    """The features with the evidence of these families no worse than that of each donor in turn."""
    worse = {name: SPEAKS[family][name] for family in of for name in _present(buyers, family)}
    for place in range(donors.shape[1]):
        theirs = buyers.select(pl.col(list(worse)).gather(donors[:, place]).name.suffix(" of donor"))
        milder = [_milder(name, way) for name, way in worse.items()]
        yield buyers.with_columns(theirs.get_columns()).with_columns(milder).select(buyers.columns)


def _milder(name: str, worse: int) -> pl.Expr:
    mine, theirs = pl.col(name), pl.col(f"{name} of donor")
    if worse == 0:
        return theirs.alias(name)
    better = pl.min_horizontal(mine, theirs) if worse > 0 else pl.max_horizontal(mine, theirs)
    # what is unknown of one of the two is no better and no worse: the donor's stands
    return pl.when(mine.is_null() | theirs.is_null()).then(theirs).otherwise(better).alias(name)


def donors_of(buyers: pl.DataFrame) -> Indices:
    """Rows of others as silent, as old, with as many orders, last seen as long ago; (rows, donors), the same for any order.

    Cells of quantiles; where one holds fewer than 24 customers, its customers look in the next larger one.
    """
    levels: list[Indices] = []
    code = np.zeros(buyers.height, np.int64)
    for name, bins in ALIKE.items():
        code = code * bins + _bins(buyers, name, bins)
        levels.append(code * len(ALIKE) + len(levels))  # no two levels share a code
    cells = pl.DataFrame(
        {f"level {k}": level for k, level in enumerate(levels)} | {CUSTOMER: buyers[CUSTOMER]}
    )
    finest = pl.lit(-1, pl.Int64)
    for name in (f"level {k}" for k in range(len(levels))):
        finest = pl.when(pl.len().over(name) >= LEAST_CELL).then(name).otherwise(finest)
    cells = cells.with_columns(
        finest.alias("cell"), (pl.col(CUSTOMER) * 0x5851F42D4C957F2D % 2_147_483_647).alias("draw")
    )
    cell = cells["cell"].to_numpy()
    order = np.lexsort((cells[CUSTOMER].to_numpy(), cells["draw"].to_numpy(), cell))
    starts = np.flatnonzero(np.diff(cell[order], prepend=cell[order[0]] - 1))
    sizes = np.diff(np.append(starts, len(order)))
    size, start = np.repeat(sizes, sizes), np.repeat(starts, sizes)
    place = np.arange(len(order)) - start
    found = np.empty((len(order), DONORS), np.int64)
    for k in range(DONORS):
        step = 1 + (k * 7919 + 13 * k) % np.maximum(size - 1, 1)
        found[order, k] = order[start + (place + step) % size]
    return found


def _bins(buyers: pl.DataFrame, name: str, bins: int) -> Indices:
    """Quantile bin of each row, equal values together; 0 where the column is not there or unknown."""
    if name not in buyers.columns:
        return np.zeros(buyers.height, np.int64)
    values = buyers[name].cast(pl.Float64).fill_null(-1.0).to_numpy()
    edges = (
        np.array(AGES)
        if name == "T_days"
        else np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))
    )
    return np.searchsorted(edges, values, side="left").astype(np.int64)


def _named(falls: Falls, rules: Rules) -> tuple[Indices, Array]:
    """Place of each customer's cause, -1 for none, and its strength; (rows,) each."""
    rows = falls.risk.shape[1]
    if not falls.families:
        return np.full(rows, -1), np.zeros(rows)
    fall, risk = falls.by.mean(axis=0), falls.risk.mean(axis=0)
    spread = falls.by.std(axis=0, ddof=1) if len(falls.by) > 1 else np.zeros_like(fall)
    first, at = fall.argmax(axis=0), np.arange(rows)
    strength = fall[first, at]
    second = np.partition(fall, -2, axis=0)[-2] if len(fall) > 1 else np.zeros(rows)
    reliable = (
        (strength >= rules.least)
        & (expit(risk) - expit(risk - strength) >= rules.least_risk)
        & (strength > rules.noise * spread[first, at])
        & (strength > rules.lead * np.maximum(second, 0.0))
    )
    return np.where(reliable, first, -1), np.where(reliable, strength, 0.0)


def _evidence(
    predictor: Predictor, buyers: pl.DataFrame, horizon_days: int, families: Sequence[Family], named: Indices
) -> pl.Series:
    """A sentence for each customer with a cause, null for the others."""
    told: list[str | None] = [None] * buyers.height
    rows = np.flatnonzero(named >= 0)
    if len(rows):
        some = buyers[rows]
        parts, events = feature_parts(predictor, some), _telling_events(predictor, some, horizon_days)
        for place, (row, facts) in enumerate(zip(rows, some.iter_rows(named=True), strict=True)):
            weights = {name: float(part[place]) for name, part in parts.items()}
            told[row] = sentence(families[named[row]].value, facts, weights, events.get(facts[CUSTOMER], ""))
    return pl.Series(EVIDENCE, told, dtype=pl.String)


def _telling_events(predictor: Predictor, buyers: pl.DataFrame, horizon_days: int) -> dict[int, str]:
    """Words for the event of each customer that adds most to the risk, where a network reads events."""
    found = event_parts(predictor, buyers, horizon_days)
    if found is None:
        return {}
    worst = found.filter(pl.col(PART) > 0).sort(PART, EVENT_TIME).unique(CUSTOMER, keep="last")
    words = pl.format(
        "most telling event: {} on {}",
        pl.col(EVENT_TYPE).str.replace_all("_", " "),
        pl.col(EVENT_TIME).dt.date(),
    )
    return dict(worst.select(CUSTOMER, words).iter_rows())
