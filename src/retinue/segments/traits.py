"""What customers are told apart by: a short list of features, with the words for their high and low ends."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import polars as pl
import polars.selectors as cs

from retinue.schema import CUSTOMER, CUSTOMER_ID, CUTOFF

MAX_GENERIC = 12
MOSTLY_NULL = 0.95
HABIT_WEIGHT = 0.4


class Role(Enum):
    """What a difference in the trait would change; a habit alone does not justify a segment of its own."""

    value = "value"
    risk = "risk"
    action = "action"
    habit = "habit"


@dataclass(frozen=True)
class Trait:
    """One thing to tell customers apart by.

    `columns` are alternatives, first found wins; `log` takes the signed log(1 + |x|) of heavy tails; `high`
    and `low` complete the words "customers with …".
    """

    name: str
    columns: tuple[str, ...]
    log: bool
    role: Role
    high: str
    low: str

    @property
    def weight(self) -> float:
        """Factor of the scaled trait; habits count, but do not lead."""
        return HABIT_WEIGHT if self.role is Role.habit else 1.0


ORDERS = Trait("orders", ("orders_ever",), True, Role.value, "more orders", "fewer orders")
SPEND = Trait("spend", ("net_spend_ever",), True, Role.value, "higher spend", "lower spend")
BASKET_VALUE = Trait(
    "basket value",
    ("average_order_value", "monetary_value"),
    True,
    Role.value,
    "larger baskets",
    "smaller baskets",
)
SILENCE = Trait("silence", ("days_since_last",), True, Role.risk, "a longer silence", "a recent order")
DISCOUNT = Trait(
    "discount", ("discount_share", "discount_rate"), False, Role.action,
    "more discounts", "full prices",
)  # fmt: skip
RETURNS = Trait(
    "returns",
    ("refund_rate_value", "refund_rate_orders"),
    False,
    Role.action,
    "more returns",
    "fewer returns",
)

TRAITS: tuple[Trait, ...] = (
    ORDERS,
    SPEND,
    BASKET_VALUE,
    SILENCE,
    Trait(
        "recent orders", ("orders_90d", "orders_180d"), True, Role.risk,
        "more recent orders", "fewer recent orders",
    ),
    Trait(
        "own silence", ("silence_ratio",), True, Role.risk,
        "silence beyond own habit", "orders within own habit",
    ),
    Trait("gap", ("gap_mean_days",), True, Role.risk, "longer gaps", "shorter gaps"),
    Trait("rhythm", ("gap_cv",), False, Role.habit, "an irregular rhythm", "a regular rhythm"),
    Trait(
        "basket size", ("quantity_per_order", "lines_per_order"), True, Role.habit,
        "more items per order", "fewer items per order",
    ),
    Trait(
        "range", ("categories_ever", "products_ever"), True,
        Role.habit, "a wider range", "a narrower range",
    ),
    DISCOUNT,
    RETURNS,
    Trait(
        "visits", ("visits_180d", "visits_30d"), True, Role.risk,
        "more visits", "fewer visits",
    ),
    Trait(
        "mail", ("email_open_rate", "email_click_rate"), False, Role.action,
        "more opened mail", "less opened mail",
    ),
    Trait("weekend", ("weekend_share",), False, Role.habit, "more weekend orders", "more weekday orders"),
    Trait("evening", ("evening_share",), False, Role.habit, "more evening orders", "more daytime orders"),
)  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """A trait with the column that stands for it in one base."""

    trait: Trait
    column: str


def choose_traits(features: pl.DataFrame) -> list[Choice]:
    """The traits that this base can be told apart by, in fixed order.

    A column is left out where it is absent, constant, or null for more than 95 % of customers. Where fewer
    than two traits are left, other numeric columns stand in, by name, at most twelve.

    Args:
        features: features table, any row order.
    """
    chosen = [Choice(trait, column) for trait in TRAITS if (column := _first_usable(trait.columns, features))]
    if len(chosen) >= 2:
        return chosen
    taken = {choice.column for choice in chosen}
    others = sorted(set(features.select(cs.numeric()).columns) - taken - {str(CUSTOMER)})
    usable = [name for name in others if _first_usable((name,), features)]
    return chosen + [Choice(_generic(name, features[name]), name) for name in usable[:MAX_GENERIC]]


def _first_usable(columns: tuple[str, ...], features: pl.DataFrame) -> str:
    for name in columns:
        if (
            name in features.columns
            and name not in (CUSTOMER, CUSTOMER_ID, CUTOFF)
            and _tells(features[name])
        ):
            return name
    return ""


def _tells(values: pl.Series) -> bool:
    if not (values.dtype.is_numeric() or values.dtype == pl.Boolean) or not len(values):
        return False
    known = values.cast(pl.Float64)
    known = known.filter(known.is_finite())
    return len(known) >= (1 - MOSTLY_NULL) * len(values) and known.n_unique() > 1


def _generic(name: str, values: pl.Series) -> Trait:
    words = name.replace("_", " ")
    known = values.cast(pl.Float64).drop_nulls()
    low, middle, high = (known.quantile(q) or 0.0 for q in (0.0, 0.5, 0.99))
    heavy = low >= 0 and high > 10 * max(middle, 1e-9)
    return Trait(words, (name,), heavy, Role.value, f"higher {words}", f"lower {words}")


def never_ordered(features: pl.DataFrame) -> pl.Series:
    """Whether each row's customer had no order by the cutoff; nobody, where no column can say it."""
    if "orders_ever" in features.columns:
        return features["orders_ever"].fill_null(0) == 0
    if "frequency" in features.columns:
        return features["frequency"].is_null()
    return pl.Series("never_ordered", [False] * len(features), dtype=pl.Boolean)


def with_orders(features: pl.DataFrame) -> pl.DataFrame:
    """The features with `orders_ever`, from `frequency` + 1 where only that is there."""
    if "orders_ever" in features.columns or "frequency" not in features.columns:
        return features
    return features.with_columns((pl.col("frequency") + 1).alias("orders_ever"))
