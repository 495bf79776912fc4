"""What an order looks like, what it cost and what came back: the families basket, price and returns."""

from __future__ import annotations

import polars as pl

from retinue.features.catalogue import Family, Feature
from retinue.features.frames import (
    DAYS_AGO,
    FROM_LAST,
    LOG_PRICE,
    Frames,
    concentration,
    count,
    count_if,
    entropy,
    joined,
    known_if,
    number,
    priced,
    ratio,
    spread,
    sum_if,
    within,
)
from retinue.schema import (
    AMOUNT,
    CATEGORIES,
    CATEGORY,
    CUSTOMER,
    DISCOUNT,
    EVENT_TYPE,
    LINES,
    ORDER,
    PRODUCT,
    QUANTITY,
    REFUND,
)

COUPON = "coupon_redeemed"
NO_ORDER = "no order yet"
RECENT = pl.col(FROM_LAST) < 3


def basket(frames: Frames) -> pl.LazyFrame:
    """Per customer with an order: means per order, the last three against those before, spread over categories."""
    amount = pl.col(AMOUNT)
    means = frames.orders.group_by(CUSTOMER).agg(
        amount.mean().alias("order_value"),
        amount.max().alias("order_value_max"),
        pl.when(RECENT).then(amount).mean().alias("order_value_recent"),
        pl.when(~RECENT).then(amount).mean().alias("order_value_before"),
        pl.col(LINES).mean().alias("order_lines"),
        pl.col(CATEGORIES).mean().alias("order_categories"),
        pl.col(QUANTITY).mean().alias("order_quantity"),
    )
    orders = frames.of(ORDER)
    spreads = [spread(orders, pl.col(PRODUCT), "product"), spread(orders, pl.col(CATEGORY), "category")]
    return joined(means, spreads)


def _basket(name: str, unit: str, sentence: str, null: str, value: pl.Expr, *columns: str) -> Feature:
    return Feature(name, unit, Family.basket, sentence, null, value, (ORDER,), columns)


_UNKNOWN = "no order yet, or unknown for all"
_BOTH = (pl.col("order_value_recent") > 0) & (pl.col("order_value_before") > 0)
BASKET = (
    _basket(
        "average_order_value",
        "account currency",
        "Mean amount of an order.",
        "no order of known amount",
        number("order_value"),
        AMOUNT,
    ),
    _basket(
        "order_value_trend",
        "log ratio",
        "Mean amount of the last three orders against those before.",
        "fewer than four orders, or a mean not above 0",
        pl.when(_BOTH).then((pl.col("order_value_recent") / pl.col("order_value_before")).log()),
        AMOUNT,
    ),
    _basket(
        "largest_order",
        "account currency",
        "Largest amount of an order.",
        "no order of known amount",
        number("order_value_max"),
        AMOUNT,
    ),
    _basket("lines_per_order", "lines", "Mean lines of an order.", _UNKNOWN, number("order_lines"), LINES),
    _basket(
        "categories_per_order",
        "categories",
        "Mean distinct categories of an order.",
        _UNKNOWN,
        number("order_categories"),
        CATEGORIES,
    ),
    _basket(
        "quantity_per_order", "units", "Mean units of an order.", _UNKNOWN, number("order_quantity"), QUANTITY
    ),
    _basket(
        "products_ever",
        "products",
        "Distinct main products of the orders.",
        _UNKNOWN,
        number("product_kinds"),
        PRODUCT,
    ),
    _basket(
        "products_180d",
        "products",
        "Distinct main products of the orders in the last 180 days.",
        _UNKNOWN,
        number("product_kinds_180d"),
        PRODUCT,
    ),
    _basket(
        "categories_ever",
        "categories",
        "Distinct main categories of the orders.",
        _UNKNOWN,
        number("category_kinds"),
        CATEGORY,
    ),
    _basket(
        "categories_180d",
        "categories",
        "Distinct main categories of the orders in the last 180 days.",
        _UNKNOWN,
        number("category_kinds_180d"),
        CATEGORY,
    ),
    _basket(
        "basket_diversity",
        "nats",
        "Entropy of the orders over main categories.",
        _UNKNOWN,
        entropy("category"),
        CATEGORY,
    ),
    _basket(
        "category_concentration",
        "probability",
        "Chance that two orders share the main category.",
        "fewer than two orders of known category",
        concentration("category"),
        CATEGORY,
    ),
    _basket(
        "top_category_share",
        "share",
        "Orders in the commonest main category.",
        _UNKNOWN,
        ratio(number("category_most"), number("category_rows")),
        CATEGORY,
    ),
)


def price(frames: Frames) -> pl.LazyFrame:
    """Per customer with an order or a coupon: discounts, unit prices against the base, coupons."""
    discount, amount = pl.col(DISCOUNT), pl.col(AMOUNT)
    both = discount.is_not_null() & amount.is_not_null()
    marked = (discount > 0).cast(pl.Float64)
    orders = frames.orders.group_by(CUSTOMER).agg(
        sum_if(both, discount).alias("taken_off"),
        sum_if(both, amount + discount).alias("full_price"),
        marked.mean().alias("discounted"),
        pl.when(RECENT).then(marked).mean().alias("discounted_recent"),
        pl.when(~RECENT).then(marked).mean().alias("discounted_before"),
    )
    typical = pl.col("log_prices") / pl.col("prices")
    levels = (
        priced(frames)
        .join(frames.whole.prices, on=CATEGORY)
        .group_by(CUSTOMER)
        .agg((pl.col(LOG_PRICE) - typical).mean().alias("log_price_level"))
    )
    coupons = (
        frames.of(COUPON)
        .group_by(CUSTOMER)
        .agg(pl.len().alias("coupons"), count_if(within(90)).alias("coupons_90d"))
    )
    return joined(frames.customers.select(CUSTOMER), (orders, levels, coupons))


def _price(name: str, unit: str, sentence: str, null: str, value: pl.Expr, *columns: str) -> Feature:
    return Feature(name, unit, Family.price, sentence, null, value, (ORDER,), columns)


PRICE = (
    _price(
        "discount_rate",
        "share",
        "Discount over the price before it, summed over the orders.",
        "no order of known discount and price",
        ratio(number("taken_off"), number("full_price")),
        AMOUNT,
        DISCOUNT,
    ),
    _price(
        "discount_share",
        "share",
        "Orders with a discount.",
        "no order of known discount",
        number("discounted"),
        DISCOUNT,
    ),
    _price(
        "discount_shift",
        "difference of shares",
        "Share of discounted orders in the last three against those before.",
        "fewer than four orders, or discount unknown",
        number("discounted_recent") - number("discounted_before"),
        DISCOUNT,
    ),
    _price(
        "price_level",
        "ratio",
        "Unit prices paid against the typical (geometric mean) unit price of the same category in the base.",
        "no order of known category and unit price",
        pl.col("log_price_level").exp(),
        AMOUNT,
        QUANTITY,
        CATEGORY,
    ),
    Feature(
        "coupons_redeemed_90d",
        "coupons",
        Family.price,
        "Coupons redeemed in the last 90 days.",
        "never",
        count("coupons_90d"),
        (COUPON,),
    ),
    Feature(
        "coupons_redeemed_ever",
        "coupons",
        Family.price,
        "Coupons redeemed so far.",
        "never",
        count("coupons"),
        (COUPON,),
    ),
)


def returns(frames: Frames) -> pl.LazyFrame:
    """Per customer with an order or refund: value ordered and paid back, before and within the last 180 days."""
    order, refund, amount = pl.col(EVENT_TYPE) == ORDER, pl.col(EVENT_TYPE) == REFUND, pl.col(AMOUNT)
    recent = within(180)
    return (
        frames.of(ORDER, REFUND)
        .group_by(CUSTOMER)
        .agg(
            count_if(order).alias("ordered"),
            count_if(refund).alias("returned"),
            known_if(refund, amount).alias("returned_known"),
            sum_if(order, amount).alias("ordered_value"),
            sum_if(refund, -amount).alias("returned_value"),
            sum_if(order & recent, amount).alias("ordered_value_recent"),
            sum_if(refund & recent, -amount).alias("returned_value_recent"),
            sum_if(order & ~recent, amount).alias("ordered_value_before"),
            sum_if(refund & ~recent, -amount).alias("returned_value_before"),
            pl.when(refund).then(pl.col(DAYS_AGO)).min().alias("refund_ago"),
        )
    )


def _returns(name: str, unit: str, sentence: str, null: str, value: pl.Expr, *columns: str) -> Feature:
    return Feature(name, unit, Family.returns, sentence, null, value, (REFUND,), columns)


_PAID = (pl.col("returned") == 0) | (pl.col("returned_known") > 0)
_RECENT_RATE = ratio(number("returned_value_recent"), number("ordered_value_recent"))
_RATE_BEFORE = ratio(number("returned_value_before"), number("ordered_value_before"))
RETURNS = (
    _returns(
        "refund_rate_value",
        "share",
        "Money paid back over money ordered.",
        "nothing ordered, or no refund of known amount",
        pl.when(_PAID).then(ratio(number("returned_value"), number("ordered_value"))),
        AMOUNT,
    ),
    _returns(
        "refund_rate_orders",
        "refunds per order",
        "Refunds over orders.",
        NO_ORDER,
        ratio(number("returned"), number("ordered")),
    ),
    _returns(
        "refund_rate_trend",
        "difference of shares",
        "Refund rate by value in the last 180 days against the time before.",
        "nothing ordered in one of the two",
        pl.when(_PAID).then(_RECENT_RATE - _RATE_BEFORE),
        AMOUNT,
    ),
    _returns(
        "days_since_last_refund",
        "whole days",
        "Last refund to the cutoff.",
        "no refund",
        number("refund_ago"),
    ),
)
