"""How the customer answers the retailer: the families engagement and campaigns."""

from __future__ import annotations

import polars as pl

from retinue.features.catalogue import Family, Feature
from retinue.features.frames import AGE, DAYS_AGO, Frames, count, count_if, joined, number, ratio, within
from retinue.schema import CUSTOMER, EVENT_TIME, EVENT_TYPE, ORDER

ON_SITE = ("visit", "view", "cart", "search", "login", "app_open")
ANSWERS = ("email_open", "email_click", "sms_click", "push_open")
SENT = ("email_sent", "sms_sent", "push_sent")
CAMPAIGN_SEEN = "campaign"
SESSION_SECONDS = 1800
RESPONSE_DAYS = 7
RESPONSE_MICROSECONDS = RESPONSE_DAYS * 86_400_000_000


def engagement(frames: Frames) -> pl.LazyFrame:
    """Per customer with such an event: counts by type and window, sessions, cart days, delay of opening."""
    counted = {
        "visits": ("visit",),
        "views": ("view",),
        "searches": ("search",),
        "carts": ("cart",),
        "logins": ("login", "app_open"),
        **{name: (name,) for name in (*SENT, *ANSWERS)},
    }
    kind, engaged = pl.col(EVENT_TYPE), pl.col(EVENT_TYPE).is_in((*ON_SITE, *ANSWERS))
    by_type = (
        frames.of(*ON_SITE, *ANSWERS, *SENT)
        .group_by(CUSTOMER, EVENT_TYPE)
        .agg(
            count_if(within(30)).alias("30"),
            count_if(within(180)).alias("180"),
            pl.len().cast(pl.Int64).alias("ever"),
            pl.col(DAYS_AGO).min(),
        )
    )
    counts = by_type.group_by(CUSTOMER).agg(
        pl.when(engaged).then(pl.col(DAYS_AGO)).min().alias("engaged_ago"),
        *(
            pl.when(kind.is_in(types)).then(pl.col(window)).sum().alias(f"{name}_{window}")
            for name, types in counted.items()
            for window in ("30", "180", "ever")
        ),
    )
    others = (_sessions(frames), _cart_days(frames), _opening(frames))
    return joined(frames.customers.select(CUSTOMER), (counts, *others))


def _sessions(frames: Frames) -> pl.LazyFrame:
    """A session starts with an event on site after more than half an hour without one."""
    since = (pl.col(EVENT_TIME) - pl.col("previous")).dt.total_seconds()
    starts = pl.col("previous").is_null() | (since > SESSION_SECONDS)
    return (
        frames.of(*ON_SITE)
        .select(CUSTOMER, EVENT_TIME, AGE)
        .sort(CUSTOMER, EVENT_TIME)
        .with_columns(pl.col(EVENT_TIME).shift(1).over(CUSTOMER).alias("previous"))
        .group_by(CUSTOMER)
        .agg(
            count_if(starts & within(30)).alias("sessions_30"),
            count_if(starts & within(180)).alias("sessions_180"),
        )
    )


def _cart_days(frames: Frames) -> pl.LazyFrame:
    """Days with a cart, and those without an order that day or the next; the cutoff's own day is not yet decided."""
    carts = frames.of("cart").filter(pl.col(DAYS_AGO) >= 1).select(CUSTOMER, DAYS_AGO).unique()
    days = frames.order_days.select(CUSTOMER, DAYS_AGO)
    day_before = frames.order_days.select(CUSTOMER, pl.col(DAYS_AGO) + 1)
    left = carts.join(days, on=[CUSTOMER, DAYS_AGO], how="anti").join(
        day_before, on=[CUSTOMER, DAYS_AGO], how="anti"
    )
    rows = pl.len().cast(pl.Int64)
    return joined(
        carts.group_by(CUSTOMER).agg(rows.alias("cart_days")),
        [left.group_by(CUSTOMER).agg(rows.alias("cart_days_left"))],
    )


def _opening(frames: Frames) -> pl.LazyFrame:
    """Hours from an e-mail to the opening that directly follows it."""
    mails = (
        frames.of("email_sent", "email_open")
        .select(CUSTOMER, EVENT_TIME, EVENT_TYPE)
        .sort(CUSTOMER, EVENT_TIME, EVENT_TYPE)
        .with_columns(
            pl.col(EVENT_TIME).shift(1).over(CUSTOMER).alias("previous"),
            pl.col(EVENT_TYPE).shift(1).over(CUSTOMER).alias("previous_type"),
        )
    )
    follows = (pl.col(EVENT_TYPE) == "email_open") & (pl.col("previous_type") == "email_sent")
    hours = (pl.col(EVENT_TIME) - pl.col("previous")).dt.total_seconds() / 3600.0
    return mails.group_by(CUSTOMER).agg(pl.when(follows).then(hours).mean().alias("opening_hours"))


def trend(name: str) -> pl.Expr:
    """Feature value: log of the daily rate in 30 days over that in 180, each count plus a half; null without events."""
    recent, long = (pl.col(f"{name}_30") + 0.5) / 30.0, (pl.col(f"{name}_180") + 0.5) / 180.0
    return pl.when(pl.col(f"{name}_180") > 0).then((recent / long).log())


def _engagement(
    name: str, unit: str, sentence: str, value: pl.Expr, types: tuple[str, ...], null: str = "never"
) -> Feature:
    return Feature(name, unit, Family.engagement, sentence, null, value, types)


def _rate(above: str, below: str, days: int = 180) -> pl.Expr:
    return ratio(number(f"{above}_{days}"), number(f"{below}_{days}"))


def _counts(name: str, unit: str, noun: str, types: tuple[str, ...]) -> tuple[Feature, ...]:
    return tuple(
        _engagement(
            f"{name}_{days}d", unit, f"{noun} in the last {days} days.", count(f"{name}_{days}"), types
        )
        for days in (30, 180)
    )


ENGAGEMENT = (
    *_counts("visits", "visits", "Visits", ("visit",)),
    *_counts("sessions", "sessions", "Stretches of events on site without half an hour's pause", ON_SITE),
    *_counts("searches", "searches", "Searches", ("search",)),
    *_counts("carts", "events", "Articles put in the cart", ("cart",)),
    *_counts("logins", "events", "Logins and app openings", ("login", "app_open")),
    _engagement(
        "visits_trend",
        "log ratio",
        "Daily visits in 30 days against 180, counts plus a half.",
        trend("visits"),
        ("visit",),
        "no visit in 180 days",
    ),
    _engagement(
        "views_per_visit",
        "views",
        "Views over visits, so far.",
        ratio(number("views_ever"), number("visits_ever")),
        ("view", "visit"),
        "no visit",
    ),
    _engagement(
        "cart_abandonment",
        "share",
        "Days with a cart and no order that day or the next; the cutoff's own day aside.",
        ratio(count("cart_days_left"), number("cart_days")),
        ("cart",),
        "no cart",
    ),
    _engagement(
        "emails_sent_30d",
        "e-mails",
        "E-mails sent in the last 30 days.",
        count("email_sent_30"),
        ("email_sent",),
    ),
    _engagement(
        "emails_sent_180d",
        "e-mails",
        "E-mails sent in the last 180 days.",
        count("email_sent_180"),
        ("email_sent",),
    ),
    _engagement(
        "email_open_rate",
        "opens per e-mail",
        "E-mails opened over sent, 180 days.",
        _rate("email_open", "email_sent"),
        ("email_sent",),
        "none sent in 180 days",
    ),
    _engagement(
        "email_click_rate",
        "clicks per e-mail",
        "E-mails clicked over sent, 180 days.",
        _rate("email_click", "email_sent"),
        ("email_sent",),
        "none sent in 180 days",
    ),
    _engagement(
        "email_open_trend",
        "difference of rates",
        "Open rate in 30 days less that in 180.",
        _rate("email_open", "email_sent", 30) - _rate("email_open", "email_sent"),
        ("email_sent",),
        "none sent in 30 days",
    ),
    _engagement(
        "email_response_hours",
        "hours",
        "Mean time from an e-mail to the opening that directly follows it.",
        number("opening_hours"),
        ("email_open",),
        "no such opening",
    ),
    _engagement(
        "sms_click_rate",
        "clicks per message",
        "Text messages clicked over sent, 180 days.",
        _rate("sms_click", "sms_sent"),
        ("sms_sent",),
        "none sent in 180 days",
    ),
    _engagement(
        "push_open_rate",
        "opens per message",
        "Push messages opened over sent, 180 days.",
        _rate("push_open", "push_sent"),
        ("push_sent",),
        "none sent in 180 days",
    ),
    _engagement(
        "days_since_last_engagement",
        "whole days",
        "Last event on site, opening or click to the cutoff.",
        number("engaged_ago"),
        (*ON_SITE, *ANSWERS),
        "no such event",
    ),
)


def campaigns(frames: Frames) -> pl.LazyFrame:
    """Per customer with an exposure: orders within 7 days of the latest exposure before them (last touch)."""
    touch = (pl.col(EVENT_TYPE) == CAMPAIGN_SEEN).cast(pl.Int64).alias("touch")
    exposures = (
        frames.of(CAMPAIGN_SEEN, ORDER)
        .select(CUSTOMER, EVENT_TIME, EVENT_TYPE, AGE, DAYS_AGO, touch)
        .sort(CUSTOMER, EVENT_TIME, EVENT_TYPE)
        .with_columns(pl.col("touch").cum_sum().over(CUSTOMER))
        .with_columns(pl.col(EVENT_TIME).min().over(CUSTOMER, "touch").alias("seen"))
    )
    is_order, exposed = pl.col(EVENT_TYPE) == ORDER, pl.col("touch") > 0
    waited = (pl.col(EVENT_TIME) - pl.col("seen")).dt.total_microseconds()
    after = is_order & exposed & (waited <= RESPONSE_MICROSECONDS)
    touches = (
        exposures.filter(exposed)
        .group_by(CUSTOMER, "touch")
        .agg(
            count_if(after).alias("answers"),
            pl.when(after).then(pl.col(DAYS_AGO)).min().alias("answered_ago"),
            pl.col(AGE).max(),
        )
    )
    decided = pl.col(AGE) >= RESPONSE_DAYS
    return touches.group_by(CUSTOMER).agg(
        pl.len().cast(pl.Int64).alias("exposures"),
        count_if(within(30)).alias("exposures_30"),
        count_if(within(180)).alias("exposures_180"),
        pl.col("answers").sum().alias("orders_after"),
        count_if(decided).alias("decided"),
        count_if(decided & (pl.col("answers") > 0)).alias("answered"),
        pl.col("answered_ago").min(),
    )


def _campaigns(name: str, unit: str, sentence: str, value: pl.Expr, null: str = "never") -> Feature:
    return Feature(name, unit, Family.campaigns, sentence, null, value, (CAMPAIGN_SEEN,))


CAMPAIGNS = (
    _campaigns(
        "campaign_exposures_30d",
        "exposures",
        "Campaign exposures in the last 30 days.",
        count("exposures_30"),
    ),
    _campaigns(
        "campaign_exposures_180d",
        "exposures",
        "Campaign exposures in the last 180 days.",
        count("exposures_180"),
    ),
    _campaigns("campaign_exposures_ever", "exposures", "Campaign exposures so far.", count("exposures")),
    _campaigns(
        "orders_after_exposure",
        "orders",
        "Orders within 7 days of the latest exposure before them.",
        count("orders_after"),
    ),
    _campaigns(
        "campaign_response_rate",
        "share",
        "Exposures at least 7 days old that an order followed within 7 days and before the next.",
        ratio(number("answered"), number("decided")),
        "no exposure that old",
    ),
    _campaigns(
        "days_since_last_response",
        "whole days",
        "Last order within 7 days of an exposure to the cutoff.",
        number("answered_ago"),
        "no such order",
    ),
)
