"""Evidence in words, made from a customer's features: what a marketer may read out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Facts = Mapping[str, Any]
MOST = 3


@dataclass(frozen=True)
class Clause:
    """A part of a sentence: what it says of the facts, empty for nothing, and the feature that it speaks of."""

    feature: str
    say: Callable[[Facts], str]


def sentence(family: str, facts: Facts, parts: Mapping[str, float] | None = None, event: str = "") -> str:
    """The silence, then what speaks for the family, at most three clauses of it, then the most telling event.

    Args:
        family: name of a cause.
        facts: the customer's features by name; unknown ones are passed over.
        parts: what each feature adds to the risk; the clauses stand in that order. Without them they stand in ours.
        event: words for the event that adds most to the risk, if it is known.
    """
    weights = parts or {}
    clauses = sorted(SAYS[family], key=lambda clause: -weights.get(clause.feature, 0.0))
    told = [text for clause in clauses if (text := clause.say(facts))]
    return (
        "; ".join([text for text in (_silence(facts), *told[:MOST], event) if text]) or f"signs of {family}"
    )


def _number(facts: Facts, name: str) -> float | None:
    value = facts.get(name)
    return float(value) if isinstance(value, (int, float)) and value == value else None  # noqa: PLR0124 (NaN)


def _count(value: float, word: str) -> str:
    return f"{value:,.0f} {word}{'' if round(value) == 1 else 's'}"


def _silence(facts: Facts) -> str:
    silent, ratio = _number(facts, "days_since_last"), _number(facts, "silence_ratio")
    if silent is None:
        return ""
    norm = f", {ratio:.1f}× own norm" if ratio is not None else ""
    return f"silent for {_count(silent, 'day')}{norm}"


def _says(name: str, form: Callable[[float], str], when: Callable[[float], bool]) -> Clause:
    def say(facts: Facts) -> str:
        value = _number(facts, name)
        return form(value) if value is not None and when(value) else ""

    return Clause(name, say)


def _severe(facts: Facts) -> str:
    if not _number(facts, "unresolved_severe_ticket"):
        return ""
    age = _number(facts, "days_since_last_ticket")
    return "a severe ticket unresolved" + (
        f", last ticket {_count(age, 'day')} ago" if age is not None else ""
    )


def _tickets(facts: Facts) -> str:
    tickets, still = _number(facts, "tickets_90d"), _number(facts, "open_tickets")
    if not tickets:
        return ""
    rest = f", {still:,.0f} still open" if still else ""
    return f"{_count(tickets, 'ticket')} in 90 days{rest}"


def _browsing(facts: Facts) -> str:
    visits, orders = _number(facts, "visits_30d"), _number(facts, "orders_30d") or 0.0
    return (
        f"{_count(visits, 'visit')} and {_count(orders, 'order')} in 30 days"
        if visits and visits > 3 * orders
        else ""
    )


def _share(name: str, words: str, least: float = 0.0) -> Clause:
    return _says(name, lambda value: f"{value:.0%} {words}", lambda value: value > least)


def _few(name: str, words: str) -> Clause:
    return _says(name, lambda value: f"{value:,.0f} {words}", lambda value: value >= 0)


SAYS: dict[str, tuple[Clause, ...]] = {
    "price": (
        _says("discount_shift", lambda v: f"discounted orders up by {v:.0%} of the last three", lambda v: v > 0),
        _share("discount_share", "of orders discounted"),
        Clause("visits_30d", _browsing),
        _says("email_click_rate", lambda v: f"{v:.2f} clicks per e-mail", lambda v: v > 0),
        _says("price_level", lambda v: f"pays {v:.2f}× the usual price of the category", lambda v: v > 1),
        _share("cart_abandonment", "of carts left behind"),
    ),
    "service": (
        Clause("unresolved_severe_ticket", _severe),
        Clause("tickets_90d", _tickets),
        _says("resolution_hours", lambda v: f"{v:,.0f} hours to resolve a ticket on average", lambda v: v > 24),
        _says("sentiment_mean", lambda v: f"mean sentiment {v:+.2f}", lambda v: v < 0),
        _says("survey_score", lambda v: f"surveys score {v:.1f} of 5", lambda v: v < 3.5),
    ),
    "quality": (
        _says("rating_mean", lambda v: f"reviews rate {v:.1f} of 5", lambda v: v < 4),
        _share("refund_rate_value", "of money paid back"),
        _says("refunds_90d", lambda v: f"{_count(v, 'refund')} in 90 days", lambda v: v > 0),
        _says("sentiment_mean", lambda v: f"mean sentiment {v:+.2f}", lambda v: v < 0),
    ),
    "engagement": (
        _says("visits_30d", lambda v: f"{_count(v, 'visit')} in 30 days", lambda v: v >= 0),
        _says("email_open_rate", lambda v: f"{v:.0%} of e-mails opened", lambda v: v >= 0),
        _says("email_open_trend", lambda v: f"open rate {v:+.0%} in the last 30 days", lambda v: v < 0),
        _says("usage_trend", lambda v: f"use down to {2.718281828 ** v:.0%} of its usual level", lambda v: v < 0),
    ),
    "range": (
        _few("categories_180d", "categories in 180 days"),
        _few("products_180d", "products in 180 days"),
        _share("top_category_share", "of orders in one category", 0.5),
    ),
    "life_cycle": (
        _says("month_concentration", lambda v: f"{v:.0%} of pairs of orders in the same month of the year", lambda v: v > 0.2),
        _share("holiday_season_share", "of orders in November or December", 0.3),
    ),
    "trigger": (
        _says("failed_payments_90d", lambda v: f"{_count(v, 'failed payment')} in 90 days", lambda v: v > 0),
        _says("pauses_ever", lambda v: _count(v, "pause"), lambda v: v > 0),
        _says("downgrades_ever", lambda v: _count(v, "downgrade"), lambda v: v > 0),
        _says("days_to_renewal", lambda v: f"renewal overdue by {-v:,.0f} days", lambda v: v < 0),
    ),
}  # fmt: skip
