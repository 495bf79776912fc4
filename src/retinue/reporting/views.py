"""What the page says in words and tables: groups, segments, data quality, assumptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import polars as pl

from retinue.decisions.quadrants import LEAST_SURVIVAL
from retinue.events.store import Manifest
from retinue.options import DecisionOptions, Rung, ValueOptions
from retinue.reporting.charts_value import QUADRANT_NAMES
from retinue.reporting.figures import Grid
from retinue.reporting.overview import value_word
from retinue.reporting.tables import (
    DAYS_SINCE_LAST,
    ORDERS_EVER,
    QUADRANTS,
    ReportTables,
    total,
)
from retinue.reporting.words import (
    MINUS,
    NONE,
    Money,
    count,
    day,
    days,
    is_number,
    model_name,
    number,
    plural,
    share,
)
from retinue.schema import (
    CLV,
    CURE,
    CUSTOMER_ID,
    CUTOFF,
    DESCRIPTION,
    FINDING,
    LEVEL,
    MODEL,
    NET_SPEND_EVER,
    P_CHURN,
    QUADRANT,
    SEGMENT,
    SEGMENT_NAME,
    TOPIC,
    VALUE_AT_STAKE,
    VALUE_IF_RETAINED,
)

_QUADRANT_WORDS = {
    "save": ("high value, high risk", "Worth winning back, and about to be lost. Act here first."),
    "advocate": ("high value, low risk", "Your best customers. Keep them glad and do not over-discount."),
    "nurture": ("low value, low risk", "Likely to order again. Room to grow the basket."),
    "let_go": ("low value, high risk", "Spend little here; automated contact only."),
}
_LEVELS = ("problem", "warning", "fact")
_MOST_CUSTOMERS = 20


@dataclass(frozen=True)
class Group:
    """One value × risk quadrant."""

    key: str
    name: str
    meaning: str
    advice: str
    customers: str
    share: str
    value: str
    at_stake: str


@dataclass(frozen=True)
class SegmentCard:
    """One micro-segment; the widths are percents for its two bars."""

    name: str
    description: str
    customers: str
    customer_share: str
    value_share: str
    customer_width: float
    value_width: float
    figures: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Finding:
    """One line of the quality table."""

    level: str
    topic: str
    text: str
    cure: str


def groups(scored: pl.DataFrame, money: Money) -> list[Group]:
    """The four quadrants with their sums."""
    mine = {key: scored.filter(pl.col(QUADRANT) == key) for key in QUADRANTS}
    return group_cards(
        {key: (m.height, total(m[CLV]), total(m[VALUE_AT_STAKE])) for key, m in mine.items()}, money
    )


def group_cards(sums: Mapping[str, tuple[int, float, float]], money: Money) -> list[Group]:
    """A card for each quadrant, from its customers, their value (clv) and their value at stake."""
    found = []
    everyone = max(sum(customers for customers, _, _ in sums.values()), 1)
    for key in QUADRANTS:
        meaning, advice = _QUADRANT_WORDS[key]
        customers, value, stake = sums[key]
        found.append(
            Group(
                key,
                QUADRANT_NAMES[key],
                meaning,
                advice,
                count(customers),
                share(customers / everyone),
                money.short(value),
                money.short(stake),
            )
        )
    return found


def quadrant_rule(rules: DecisionOptions, limit: float | None, money: Money) -> str:
    """Where the lines between the groups come from; `limit` is the least value that counts as high, if any does."""
    risk = f"High risk: a probability of {share(rules.risk_threshold)} or more of not ordering."
    if limit is None:
        return risk + " No customer counts as high value here."
    how = (
        "as set by decisions.value_threshold"
        if rules.value_threshold is not None
        else f"the best {share(1 - rules.value_quantile)} of customers"
    )
    least = f"1 {MINUS} risk counts as at least {LEAST_SURVIVAL:g}"
    return (
        f"{risk} High value: {money.full(limit)} or more if retained ({how}). Customers more than "
        f"{share(1 - LEAST_SURVIVAL)} sure to stay away count for less ({least}): long-gone big spenders are let go."
    )


def customers_to_save(scored: pl.DataFrame, money: Money) -> Grid | None:
    """The largest stakes among the customers to save."""
    rows = scored.filter(pl.col(QUADRANT) == "save").sort(
        VALUE_AT_STAKE, CUSTOMER_ID, descending=[True, False]
    )
    if rows.is_empty():
        return None
    wanted = (
        CUSTOMER_ID,
        VALUE_AT_STAKE,
        P_CHURN,
        VALUE_IF_RETAINED,
        CLV,
        ORDERS_EVER,
        NET_SPEND_EVER,
        DAYS_SINCE_LAST,
        SEGMENT_NAME,
    )
    return Grid(
        (
            "Customer",
            "Segment",
            "Value at stake",
            "Risk",
            "If retained",
            "Discounted value",
            "Orders so far",
            "Spent so far",
            "Silent for",
        ),
        tuple(
            (
                who,
                segment or NONE,
                money.full(stake),
                share(risk),
                money.full(retained),
                money.full(clv),
                count(orders),
                money.full(spent),
                days(silent),
            )
            for who, stake, risk, retained, clv, orders, spent, silent, segment in rows[:_MOST_CUSTOMERS]
            .select(wanted)
            .iter_rows()
        ),
        text_columns=2,
    )


def segment_cards(tables: ReportTables, scored: pl.DataFrame, money: Money) -> list[SegmentCard]:
    """One card per segment, the most valuable first."""
    words: dict[Any, str] = {}
    if {SEGMENT, DESCRIPTION} <= set(tables.segment_profiles.columns):
        words = dict(tables.segment_profiles.select(SEGMENT, DESCRIPTION).iter_rows())
    everyone, worth = tables.segments.height, total(scored[CLV])
    ranked = []
    for (segment, name), members in tables.segments.group_by(SEGMENT, SEGMENT_NAME):
        mine = scored.filter(pl.col(SEGMENT) == segment)
        past = members.join(tables.features, on=[CUSTOMER_ID, CUTOFF], how="left")
        value = total(mine[CLV])
        part = members.height / everyone
        of_value = value / worth if worth > 0 else None
        each = max(mine.height, 1)
        figures = (
            ("Discounted value", money.short(value) if mine.height else NONE),
            ("per customer", money.full(value / each) if mine.height else NONE),
            ("Mean risk", share(total(mine[P_CHURN]) / each) if mine.height else NONE),
            ("Orders so far, median", number(_median(past, ORDERS_EVER), 0)),
            ("Spent so far, median", money.full(_median(past, NET_SPEND_EVER))),
            ("Silent for, median", days(_median(past, DAYS_SINCE_LAST))),
        )
        card = SegmentCard(
            str(name),
            words.get(segment) or "",
            count(members.height),
            share(part),
            share(of_value),
            round(100 * part, 1),
            round(100 * min(max(of_value or 0.0, 0.0), 1.0), 1),
            figures,
        )
        ranked.append((-round(value, 6), segment, card))
    return [card for _, _, card in sorted(ranked, key=lambda item: item[:2])]


def _median(rows: pl.DataFrame, column: str) -> float | None:
    middle = rows[column].median() if column in rows.columns else None
    return float(middle) if isinstance(middle, (int, float)) else None


def findings(quality: pl.DataFrame) -> list[Finding]:
    """Quality findings, worst first, otherwise in the order they were given."""
    rows = [
        Finding(*row) for row in quality.select(LEVEL, TOPIC, FINDING, pl.col(CURE).fill_null("")).iter_rows()
    ]
    rows = [replace(f, text=f.text[:1].upper() + f.text[1:]) for f in rows]
    return sorted(rows, key=lambda f: _LEVELS.index(f.level) if f.level in _LEVELS else len(_LEVELS))


def problems(quality: pl.DataFrame) -> list[Finding]:
    """The findings of level problem."""
    return [f for f in findings(quality) if f.level == "problem"]


def is_sound(quality: pl.DataFrame) -> bool:
    """Whether risk and value may be ranked: no problem but, at most, one that concerns segments alone."""
    return all(f.topic == "segments" for f in problems(quality))


def row_balance(manifest: Manifest) -> list[tuple[str, str, str, float]]:
    """Name, key, rows and percent of rows read, for each place a row can end."""
    parts = [
        ("used", "used", manifest.rows_kept),
        ("set aside (quarantine)", "aside", manifest.rows_quarantined),
        ("exact duplicates", "twice", manifest.rows_duplicate),
    ]
    if manifest.rows_left_out:
        parts.append(("left out by filter or status", "left", manifest.rows_left_out))
    whole = max(manifest.rows_in + manifest.rows_made, 1)
    return [(name, key, rows_text(n), round(100 * n / whole, 2)) for name, key, n in parts]


def rows_read(manifest: Manifest) -> str:
    """How many rows were read, and how many more their columns told of."""
    made = f", {manifest.rows_made:,} more made from their columns" if manifest.rows_made else ""
    return f"{rows_text(manifest.rows_in)} read{made}"


def rows_text(rows: int) -> str:
    """Rows with their noun."""
    return plural(rows, "row")


def model_names(forecasts: pl.DataFrame) -> str:
    """The models behind the forecasts, in words."""
    names = sorted(forecasts[MODEL].unique().to_list())
    return ", ".join(model_name(name) for name in names) or "none"


def assumptions(tables: ReportTables, money: Money) -> list[tuple[str, str]]:
    """What the figures rest on, as name and sentence."""
    return [
        (
            "History ends",
            f"{day(tables.cutoff, tables.manifest.local_zone)} (the cutoff). Nothing that happened or became known later "
            "was used.",
        ),
        ("Horizon", f"{count(tables.horizon_days)} days after the cutoff."),
        ("Data", data_words(tables.manifest)),
        ("Model", _made_by(tables)),
        *_prior(tables.metrics),
        ("Money", money_words(tables.value, value_word(tables), money)),
        ("Discounting", discounting_words(tables.value)),
        ("Events", event_words(tables.manifest)),
    ]


def data_words(manifest: Manifest) -> str:
    """When the events are from."""
    zone, end = manifest.local_zone, datetime.fromisoformat(manifest.observation_end)
    return (
        f"Events from {_day_of(manifest.first_event, zone)} to {_day_of(manifest.last_event, zone)}; observed until "
        f"{day(end, zone)} ({'as given' if manifest.observation_end_given else 'taken from the last event'}). Days are "
        f"those of {zone}."
    )


def event_words(manifest: Manifest) -> str:
    """How many events there are, and which."""
    return (
        f"{plural(manifest.events, 'event')} of {plural(manifest.customers, 'customer')}; data fingerprint "
        f"{manifest.fingerprint[:12]}."
    )


def money_words(value: ValueOptions, counts: str, money: Money) -> str:
    """What clv counts, "revenue" or "margin", and in which unit."""
    margin = (
        "Value (clv) counts revenue: no margin rate was given (value.margin_rate is 1)."
        if counts == "revenue"
        else f"Value (clv) counts margin: {share(value.margin_rate)} of net spend where no cost is known. Expected spend "
        "is all of it."
    )
    return f"{margin} Amounts in {money.unit}, net of refunds."


def discounting_words(value: ValueOptions) -> str:
    """How what comes later counts for less."""
    return (
        f"Expected spend is not discounted; value (clv) is, at {share(value.discount_rate_yearly)} a year, continuously, "
        "back to the cutoff."
    )


def _made_by(tables: ReportTables) -> str:
    names = model_names(tables.forecasts)
    if set(tables.forecasts[MODEL]) == {Rung.zero_shot.value}:
        return f"{names}: pretrained on simulated bases, it read this history; nothing was fitted to it."
    return f"{names}, fitted on the history alone."


def _prior(metrics: dict[str, Any] | None) -> list[tuple[str, str]]:
    """How far this base lies from those that the base model has seen, where it was asked."""
    found = (metrics or {}).get("unlikeness")
    if not is_number(found):
        return []
    if found > 1:
        return [
            (
                "Unlike the base model's bases",
                f"This base lies {number(found, 1)} times as far out as the furthest simulated base that the base model "
                "was judged against; read its forecasts with doubt. Where it could choose, retinue left it out.",
            )
        ]
    return [("Base model", f"This base is more unusual than {share(found)} of the bases it has seen.")]


def _day_of(moment: str, zone: str) -> str:
    return day(datetime.fromisoformat(moment), zone) if moment else NONE


def words(cutoff_day: str, horizon: str, value_word: str) -> list[tuple[str, str]]:
    """What the figures are called and what they mean.

    Args:
        cutoff_day: last day of history, in words.
        horizon: length of the future, in words.
        value_word: what clv counts, "revenue" or "margin".
    """
    worth = "The same revenue" if value_word == "revenue" else "The margin in expected spend"
    return [
        (
            "Expected spend",
            f"What customers are expected to pay within the next {horizon}, net of refunds, not discounted.",
        ),
        (
            "Value (clv)",
            f"{worth}, discounted to {cutoff_day}. What was spent before is not in it. Wherever this page says value, "
            "it means this.",
        ),
        (
            "Churn risk",
            f"The probability that a customer places no order within the next {horizon}. A customer may stay away for "
            "that long and still return later.",
        ),
        (
            "Value if retained",
            "Value (clv) of a customer who orders at least once more: value ÷ (1 − risk), with 1 − risk counted as at "
            f"least {LEAST_SURVIVAL:g}. So customers more than {share(1 - LEAST_SURVIVAL)} sure to stay away count for "
            "less, and long-gone big spenders are let go.",
        ),
        (
            "Value at stake",
            "Risk × value if retained: what is lost, on average, by customers who stay away. An action saves a part of "
            "it at most.",
        ),
        (
            "Sum of risks",
            "“Expected not to order” adds up everybody's risk. It is not the count of customers above some limit.",
        ),
    ]


def event_types(manifest: Manifest) -> list[tuple[str, str]]:
    """Types with the number of their events, the most frequent first."""
    ranked = sorted(manifest.event_types.items(), key=lambda item: (-item[1], item[0]))
    return [(kind, count(events)) for kind, events in ranked]
