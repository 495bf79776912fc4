"""Where and when the customer buys: the families channel and timing."""

from __future__ import annotations

import polars as pl

from retinue.features.catalogue import Family, Feature
from retinue.features.frames import (
    AGE,
    DAY,
    DAY_ORDERS,
    Frames,
    concentration,
    count_if,
    entropy,
    joined,
    number,
    ratio,
    spread,
    sum_if,
)
from retinue.schema import CHANNEL, CUSTOMER, DEVICE, ORDER

WEB = ("web", "website", "online", "site", "ecommerce", "e-commerce", "internet")
APP = ("app", "mobile", "mobile app")
STORE = ("store", "shop", "retail", "offline", "pos", "in-store")
PHONE = ("phone", "telephone", "call centre", "call center")
HANDHELD = ("mobile", "phone", "smartphone", "tablet", "ios", "android")


def channel(frames: Frames) -> pl.LazyFrame:
    """Per customer: orders over channels and switches between them, events over devices."""
    name = pl.col(CHANNEL).str.to_lowercase()
    previous = pl.col("previous")
    ordered = frames.orders.select(CUSTOMER, name.alias(CHANNEL)).with_columns(
        pl.col(CHANNEL).shift(1).over(CUSTOMER).alias("previous")
    )
    is_ = pl.col(CHANNEL)
    shares = ordered.group_by(CUSTOMER).agg(
        count_if(is_.is_in(WEB)).alias("web_orders"),
        count_if(is_.is_in(APP)).alias("app_orders"),
        count_if(is_.is_in(STORE)).alias("store_orders"),
        count_if(is_.is_in(PHONE)).alias("phone_orders"),
        count_if(previous != is_).alias("switches"),
        count_if(previous.is_not_null() & is_.is_not_null()).alias("steps"),
    )
    lower, devices = pl.col(DEVICE).str.to_lowercase(), pl.col("devices")
    by_device = (
        frames.known.filter(pl.col(DEVICE).is_not_null())
        .group_by(CUSTOMER, DEVICE)
        .agg(pl.len().cast(pl.Int64).alias("devices"), pl.col(AGE).min())
    )
    handheld = by_device.group_by(CUSTOMER).agg(
        sum_if(lower.is_in(HANDHELD), devices).alias("handheld"), devices.sum().alias("on_devices")
    )
    spreads = (spread(frames.of(ORDER), name, "channel_of"), spread(by_device, lower, "device_of", devices))
    return joined(frames.customers.select(CUSTOMER), (shares, handheld, *spreads))


def _channel(
    name: str, unit: str, sentence: str, value: pl.Expr, null: str = "no order of known channel"
) -> Feature:
    return Feature(name, unit, Family.channel, sentence, null, value, (ORDER,), (CHANNEL,))


def _device(name: str, unit: str, sentence: str, value: pl.Expr) -> Feature:
    return Feature(name, unit, Family.channel, sentence, "no event of known device", value, (), (DEVICE,))


def _share(*names: str) -> pl.Expr:
    return ratio(pl.sum_horizontal(number(name) for name in names), number("channel_of_rows"))


CHANNELS = (
    _channel("web_share", "share", f"Orders through {', '.join(WEB)}.", _share("web_orders")),
    _channel("app_share", "share", f"Orders through {', '.join(APP)}.", _share("app_orders")),
    _channel("store_share", "share", f"Orders through {', '.join(STORE)}.", _share("store_orders")),
    _channel("phone_share", "share", f"Orders through {', '.join(PHONE)}.", _share("phone_orders")),
    _channel(
        "online_share", "share", "Orders through the web or an app.", _share("web_orders", "app_orders")
    ),
    _channel(
        "top_channel_share",
        "share",
        "Orders through the commonest channel.",
        ratio(number("channel_of_most"), number("channel_of_rows")),
    ),
    _channel("channels_ever", "channels", "Distinct channels of the orders.", number("channel_of_kinds")),
    _channel("channel_entropy", "nats", "Entropy of the orders over channels.", entropy("channel_of")),
    _channel(
        "channel_switch_rate",
        "share",
        "Successive orders that went through different channels.",
        ratio(number("switches"), number("steps")),
        "no two successive orders of known channel",
    ),
    _device(
        "handheld_share",
        "share",
        f"Events on {', '.join(HANDHELD)}.",
        ratio(number("handheld"), number("on_devices")),
    ),
    _device(
        "top_device_share",
        "share",
        "Events on the commonest device.",
        ratio(number("device_of_most"), number("device_of_rows")),
    ),
    _device("device_entropy", "nats", "Entropy of the events over devices.", entropy("device_of")),
)


def timing(frames: Frames) -> pl.LazyFrame:
    """Per customer with an order: orders by weekday, hour, month and day of month on the shoppers' clock."""
    day, orders = pl.col(DAY), pl.col(DAY_ORDERS)
    shares = frames.order_days.group_by(CUSTOMER).agg(
        orders.sum().alias("timed"),
        sum_if(day.dt.weekday() >= 6, orders).alias("weekend"),
        sum_if(day.dt.month() >= 11, orders).alias("holiday"),
    )
    evenings = (
        frames.of(ORDER).group_by(CUSTOMER).agg(count_if(frames.local.dt.hour() >= 18).alias("evening"))
    )
    months = spread(frames.order_days, day.dt.month().cast(pl.Int64), "month_of", orders)
    days = spread(frames.order_days, day.dt.day().cast(pl.Int64), "day_of", orders)
    return joined(shares, (evenings, months, days))


def _timing(
    name: str, unit: str, sentence: str, value: pl.Expr, null: str = "no order yet", needs_clock: bool = False
) -> Feature:
    return Feature(name, unit, Family.timing, sentence, null, value, (ORDER,), needs_clock=needs_clock)


_TWO = "fewer than two orders"
TIMING = (
    _timing(
        "weekend_share", "share", "Orders on Saturday or Sunday.", ratio(number("weekend"), number("timed"))
    ),
    _timing(
        "evening_share",
        "share",
        "Orders from 18:00 to midnight.",
        ratio(number("evening"), number("timed")),
        needs_clock=True,
    ),
    _timing(
        "holiday_season_share",
        "share",
        "Orders in November or December.",
        ratio(number("holiday"), number("timed")),
    ),
    _timing(
        "month_concentration",
        "probability",
        "Chance that two orders fall in the same month of the year.",
        concentration("month_of"),
        _TWO,
    ),
    _timing(
        "day_of_month_concentration",
        "probability",
        "Chance that two orders fall on the same day of the month.",
        concentration("day_of"),
        _TWO,
    ),
)
