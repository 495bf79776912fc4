"""What the customer asks, pays by the month and collects: the families service, subscription and loyalty."""

from __future__ import annotations

import polars as pl

from retinue.features.catalogue import Family, Feature
from retinue.features.contact import trend
from retinue.features.frames import (
    AGE,
    DAYS_AGO,
    Frames,
    count,
    count_if,
    joined,
    known_if,
    number,
    sum_if,
    total,
    within,
)
from retinue.schema import CUSTOMER, EVENT_TIME, EVENT_TYPE, QUANTITY, RATING, SENTIMENT, SEVERITY

OPENED, RESOLVED = "ticket_opened", "ticket_resolved"
SEVERE = 0.7
MONTH_DAYS = 365.25 / 12
USAGE = ("login", "app_open", "visit", "view")
GIVEN, WITHDRAWN = "consent_given", "consent_withdrawn"
START, RENEW, CANCEL = "subscription_start", "subscription_renew", "subscription_cancel"


def service(frames: Frames) -> pl.LazyFrame:
    """Per customer: tickets with the resolution of the same rank (first in, first out), sentiment, ratings."""
    others = (_tickets(frames), _surveys(frames))
    said = (
        frames.known.filter(pl.col(SENTIMENT).is_not_null())
        .group_by(CUSTOMER)
        .agg(pl.col(SENTIMENT).mean().alias("said"))
    )
    reviews = frames.of("review").group_by(CUSTOMER).agg(pl.col(RATING).mean().alias("reviewed"))
    return joined(frames.customers.select(CUSTOMER), (*others, said, reviews))


def _ranked(rows: pl.LazyFrame) -> pl.LazyFrame:
    numbered = rows.select(
        CUSTOMER, EVENT_TIME, SEVERITY, AGE, DAYS_AGO, pl.lit(1, dtype=pl.Int64).alias("ticket")
    )
    return numbered.sort(CUSTOMER, EVENT_TIME, SEVERITY, nulls_last=True).with_columns(
        pl.col("ticket").cum_sum().over(CUSTOMER)
    )


def _tickets(frames: Frames) -> pl.LazyFrame:
    resolved = _ranked(frames.of(RESOLVED)).select(CUSTOMER, "ticket", pl.col(EVENT_TIME).alias("resolved"))
    hours = (pl.col("resolved") - pl.col(EVENT_TIME)).dt.total_seconds() / 3600.0
    open_ = pl.col("resolved").is_null()
    return (
        _ranked(frames.of(OPENED))
        .join(resolved, on=[CUSTOMER, "ticket"], how="left")
        .group_by(CUSTOMER)
        .agg(
            pl.len().cast(pl.Int64).alias("tickets"),
            count_if(within(90)).alias("tickets_90"),
            count_if(open_).alias("open_tickets"),
            count_if(open_ & (pl.col(SEVERITY) >= SEVERE)).alias("severe_tickets"),
            pl.when(hours >= 0).then(hours).mean().alias("resolving_hours"),
            pl.col(DAYS_AGO).min().alias("ticket_ago"),
        )
    )


def _surveys(frames: Frames) -> pl.LazyFrame:
    score = pl.col(RATING)
    return (
        frames.of("survey")
        .filter(score.is_not_null())
        .with_columns(pl.col(AGE).min().over(CUSTOMER).alias("latest"))
        .group_by(CUSTOMER)
        .agg(
            score.mean().alias("surveyed"),
            pl.when(pl.col(AGE) == pl.col("latest")).then(score).mean().alias("survey_last"),
            pl.when(pl.col(AGE) > pl.col("latest")).then(score).mean().alias("survey_before"),
        )
    )


def _service(
    name: str,
    unit: str,
    sentence: str,
    value: pl.Expr,
    null: str = "never",
    types: tuple[str, ...] = (OPENED,),
    *columns: str,
) -> Feature:
    return Feature(name, unit, Family.service, sentence, null, value, types, columns)


SERVICE = (
    _service("tickets_90d", "tickets", "Tickets opened in the last 90 days.", count("tickets_90")),
    _service("tickets_ever", "tickets", "Tickets opened so far.", count("tickets")),
    _service(
        "open_tickets",
        "tickets",
        "Tickets without a resolution, the n-th of which answers the n-th ticket.",
        count("open_tickets"),
    ),
    _service(
        "unresolved_severe_ticket",
        "0 or 1",
        f"Whether an open ticket has a severity of {SEVERE} or more.",
        (pl.col("severe_tickets").fill_null(0) > 0).cast(pl.Float64),
        "never",
        (OPENED,),
        SEVERITY,
    ),
    _service(
        "resolution_hours",
        "hours",
        "Mean time from a ticket to its resolution.",
        number("resolving_hours"),
        "no resolved ticket",
    ),
    _service(
        "days_since_last_ticket",
        "whole days",
        "Last ticket opened to the cutoff.",
        number("ticket_ago"),
        "no ticket",
    ),
    _service(
        "sentiment_mean",
        "-1 to 1",
        "Mean sentiment of the events that carry one.",
        number("said"),
        "no such event",
        (),
        SENTIMENT,
    ),
    _service(
        "rating_mean",
        "1 to 5",
        "Mean rating of the reviews.",
        number("reviewed"),
        "no rated review",
        ("review",),
        RATING,
    ),
    _service(
        "survey_score",
        "1 to 5",
        "Mean score of the surveys.",
        number("surveyed"),
        "no scored survey",
        ("survey",),
        RATING,
    ),
    _service(
        "survey_trend",
        "difference",
        "Score of the last survey less the mean of those before.",
        number("survey_last") - number("survey_before"),
        "fewer than two scored surveys",
        ("survey",),
        RATING,
    ),
)


def subscription(frames: Frames) -> pl.LazyFrame:
    """Per customer with such an event: ages of starts, payments and cancellations, counts, use."""
    kind, age = pl.col(EVENT_TYPE), pl.col(AGE)
    paid = kind.is_in((START, RENEW))
    types = (START, RENEW, CANCEL, "subscription_pause", "subscription_downgrade", "payment_failed")
    terms = (
        frames.of(*types)
        .group_by(CUSTOMER)
        .agg(
            pl.when(kind == START).then(age).min().alias("start_age"),
            pl.when(kind == CANCEL).then(age).min().alias("cancel_age"),
            pl.when(paid).then(age).min().alias("paid_age"),
            pl.when(paid).then(age).max().alias("first_paid_age"),
            count_if(paid).alias("payments"),
            count_if(kind == RENEW).alias("renewals"),
            count_if(kind == "subscription_pause").alias("pauses"),
            count_if(kind == "subscription_downgrade").alias("downgrades"),
            count_if(kind == "payment_failed").alias("failed"),
            count_if((kind == "payment_failed") & within(90)).alias("failed_90"),
        )
    )
    use = (
        frames.of(*USAGE)
        .group_by(CUSTOMER)
        .agg(count_if(within(30)).alias("usage_30"), count_if(within(180)).alias("usage_180"))
    )
    return joined(frames.customers.select(CUSTOMER), (terms, use))


def _subscription(
    name: str,
    unit: str,
    sentence: str,
    value: pl.Expr,
    null: str = "never",
    types: tuple[str, ...] = (START,),
) -> Feature:
    return Feature(name, unit, Family.subscription, sentence, null, value, types)


_RUNS = pl.col("start_age").is_not_null() & (
    pl.col("cancel_age").is_null() | (pl.col("cancel_age") > pl.col("start_age"))
)
_LASTED = (
    pl.when(_RUNS).then(pl.col("start_age")).otherwise(pl.col("start_age") - pl.col("cancel_age"))
    / MONTH_DAYS
)
_PERIOD = (pl.col("first_paid_age") - pl.col("paid_age")) / (pl.col("payments") - 1)
_NO_START = "no subscription started"
SUBSCRIPTION = (
    _subscription(
        "subscription_active",
        "0 or 1",
        "Whether the latest subscription has not been cancelled since it started.",
        pl.when(pl.col("start_age").is_not_null()).then(_RUNS.cast(pl.Float64)),
        _NO_START,
    ),
    _subscription(
        "subscription_months",
        "months of 30.4 days",
        "From the latest start to its cancellation, or to the cutoff.",
        _LASTED,
        _NO_START,
    ),
    _subscription(
        "renewals_ever", "renewals", "Subscription renewals so far.", count("renewals"), types=(RENEW,)
    ),
    _subscription(
        "pauses_ever", "pauses", "Subscription pauses so far.", count("pauses"), types=("subscription_pause",)
    ),
    _subscription(
        "downgrades_ever",
        "downgrades",
        "Subscription downgrades so far.",
        count("downgrades"),
        types=("subscription_downgrade",),
    ),
    _subscription(
        "failed_payments_90d",
        "payments",
        "Payments failed in the last 90 days.",
        count("failed_90"),
        types=("payment_failed",),
    ),
    _subscription(
        "failed_payments_ever",
        "payments",
        "Payments failed so far.",
        count("failed"),
        types=("payment_failed",),
    ),
    _subscription(
        "days_to_renewal",
        "days",
        "Mean time between starts and renewals less the time since the last; negative = overdue.",
        pl.when(_RUNS & (pl.col("payments") > 1)).then(_PERIOD - pl.col("paid_age")),
        "no running subscription, or never renewed",
        (RENEW,),
    ),
    _subscription(
        "usage_trend",
        "log ratio",
        "Daily visits, views, logins and app openings of a subscriber in 30 days against 180, counts plus a half.",
        pl.when(pl.col("start_age").is_not_null()).then(trend("usage")),
        "no subscription, or no use in 180 days",
    ),
)


def loyalty(frames: Frames) -> pl.LazyFrame:
    """Per customer with such an event: points (their quantity, whatever its sign), reviews, referrals, consent."""
    kind, points = pl.col(EVENT_TYPE), pl.col(QUANTITY).abs()
    earned, redeemed = kind == "points_earned", kind == "points_redeemed"
    return (
        frames.of("points_earned", "points_redeemed", "review", "referral", GIVEN, WITHDRAWN)
        .group_by(CUSTOMER)
        .agg(
            count_if(earned | redeemed).alias("moves"),
            known_if(earned | redeemed, points).alias("moves_known"),
            (sum_if(earned, points) - sum_if(redeemed, points)).alias("balance"),
            count_if(earned & within(90)).alias("earnings_90"),
            known_if(earned & within(90), points).alias("earnings_known_90"),
            sum_if(earned & within(90), points).alias("earned_90"),
            count_if(redeemed & within(90)).alias("redemptions_90"),
            known_if(redeemed & within(90), points).alias("redemptions_known_90"),
            sum_if(redeemed & within(90), points).alias("redeemed_90"),
            count_if(kind == "review").alias("reviews"),
            count_if(kind == "referral").alias("referrals"),
            pl.when(kind == GIVEN).then(pl.col(AGE)).min().alias("given_age"),
            pl.when(kind == WITHDRAWN).then(pl.col(AGE)).min().alias("withdrawn_age"),
        )
    )


def _loyalty(
    name: str,
    unit: str,
    sentence: str,
    value: pl.Expr,
    types: tuple[str, ...],
    null: str = "never",
    *columns: str,
) -> Feature:
    return Feature(name, unit, Family.loyalty, sentence, null, value, types, columns)


_UNKNOWN = "there were such events, none of known quantity"
LOYALTY = (
    _loyalty(
        "suppressed",
        "0 or 1",
        "Whether consent was withdrawn and not given again since.",
        (
            pl.col("withdrawn_age").is_not_null()
            & (pl.col("given_age").is_null() | (pl.col("given_age") >= pl.col("withdrawn_age")))
        ).cast(pl.Float64),
        (WITHDRAWN,),
    ),
    _loyalty(
        "points_balance",
        "points",
        "Points earned less points redeemed.",
        total("balance", "moves", "moves_known"),
        ("points_earned",),
        _UNKNOWN,
        QUANTITY,
    ),
    _loyalty(
        "points_earned_90d",
        "points",
        "Points earned in the last 90 days.",
        total("earned_90", "earnings_90", "earnings_known_90"),
        ("points_earned",),
        _UNKNOWN,
        QUANTITY,
    ),
    _loyalty(
        "points_redeemed_90d",
        "points",
        "Points redeemed in the last 90 days.",
        total("redeemed_90", "redemptions_90", "redemptions_known_90"),
        ("points_redeemed",),
        _UNKNOWN,
        QUANTITY,
    ),
    _loyalty("reviews_ever", "reviews", "Reviews written so far.", count("reviews"), ("review",)),
    _loyalty("referrals_ever", "referrals", "Customers referred so far.", count("referrals"), ("referral",)),
)
