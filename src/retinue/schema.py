"""Every table that passes between rooms: column name, dtype, unit and null rule. Imports nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import polars as pl

UTC_TIME = pl.Datetime("us", "UTC")
SCHEMA_VERSION = 1


class InputError(Exception):
    """A mistake in the user's data or options, told with field, rule, value and cure; never shown as a traceback."""


class Column(str):
    """A column name that knows its dtype, unit and null rule; works wherever a name does (`pl.col(AMOUNT)`)."""

    dtype: pl.DataType
    unit: str
    null: str

    def __new__(cls, name: str, dtype: Any, unit: str, null: str = "never") -> Self:
        """Null is "never", or the sentence that says what a null means."""
        column = super().__new__(cls, name)
        column.dtype = dtype() if isinstance(dtype, type) else dtype
        column.unit = unit
        column.null = null
        return column

    def __getnewargs__(self) -> tuple[str, pl.DataType, str, str]:
        return str(self), self.dtype, self.unit, self.null


@dataclass(frozen=True)
class Table:
    """The written contract of one table; `check` is the door that every reader goes through."""

    name: str
    columns: tuple[Column, ...]
    optional: tuple[Column, ...] = ()

    def check(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Returns the frame unchanged.

        Raises:
            InputError: a column is missing, has another dtype, or holds a null where none may be.
        """
        for column in self.columns + tuple(c for c in self.optional if c in frame.columns):
            if column not in frame.columns:
                raise InputError(f"{self.name}: column '{column}' is missing; it has {frame.columns}.")
            if frame.schema[column] != column.dtype:
                raise InputError(
                    f"{self.name}: column '{column}' is {frame.schema[column]}, the contract says {column.dtype}."
                )
            if column.null == "never" and (nulls := frame[column].null_count()):
                raise InputError(f"{self.name}: column '{column}' has {nulls:,} nulls, and none may be.")
        return frame

    @property
    def schema(self) -> pl.Schema:
        """Names and dtypes of the required columns, in order."""
        return pl.Schema({str(column): column.dtype for column in self.columns})


# keys
BASE = Column("base", pl.String, "retailer, brand or market")
CUSTOMER_ID = Column("customer_id", pl.String, "the input's own id, or its keyed pseudonym")
CUSTOMER = Column("customer", pl.Int64, "stable 63-bit code of (base, customer_id); customer % shards is the shard")
CUTOFF = Column("cutoff", UTC_TIME, "last instant of history")
HORIZON_DAYS = Column("horizon_days", pl.Int32, "days after the cutoff")

# events
EVENT_TIME = Column("event_time", UTC_TIME, "when it happened")
KNOWN_TIME = Column("known_time", UTC_TIME, "when we could know it")
EVENT_TYPE = Column("event_type", pl.String, "order, refund, visit, …; any other name is allowed")
ORDER_ID = Column("order_id", pl.String, "groups lines; ties a refund to its order", "the source has none")
AMOUNT = Column("amount", pl.Float64, "account currency, net of discount, signed", "event carries no money")
DISCOUNT = Column("discount", pl.Float64, "account currency taken off, ≥ 0", "unknown")
COST = Column("cost", pl.Float64, "account currency, goods cost", "unknown")
QUANTITY = Column("quantity", pl.Float64, "units", "unknown")
LINES = Column("lines", pl.Int32, "lines in the order", "unknown")
CATEGORIES = Column("categories", pl.Int32, "distinct categories in the order", "unknown")
CATEGORY = Column("category", pl.String, "of the largest line by amount", "unknown")
BRAND = Column("brand", pl.String, "of the largest line by amount", "unknown")
PRODUCT = Column("product", pl.String, "of the largest line by amount", "unknown")
CHANNEL = Column("channel", pl.String, "where it happened: web, store, app, …", "unknown")
DEVICE = Column("device", pl.String, "desktop, mobile, …", "unknown")
CAMPAIGN = Column("campaign", pl.String, "campaign the event belongs to", "none or unknown")
REGION = Column("region", pl.String, "country, state or shop region", "unknown")
SEVERITY = Column("severity", pl.Float64, "0 (trifle) to 1 (worst)", "unknown")
SENTIMENT = Column("sentiment", pl.Float64, "-1 to 1", "unknown")
RATING = Column("rating", pl.Float64, "1 to 5", "unknown")

NUMBERS = (AMOUNT, DISCOUNT, COST, QUANTITY, SEVERITY, SENTIMENT, RATING)
LABELS = (CATEGORY, BRAND, PRODUCT, CHANNEL, DEVICE, CAMPAIGN, REGION)

EVENTS = Table(
    "events",
    (BASE, CUSTOMER_ID, CUSTOMER, EVENT_TIME, KNOWN_TIME, EVENT_TYPE),
    (ORDER_ID, AMOUNT, DISCOUNT, COST, QUANTITY, LINES, CATEGORIES, *LABELS, SEVERITY, SENTIMENT, RATING),
)

ORDER = "order"
REFUND = "refund"
KNOWN_EVENT_TYPES = (
    ORDER, REFUND, "visit", "view", "cart", "search", "email_sent", "email_open", "email_click", "sms_sent",
    "sms_click", "push_sent", "push_open", "campaign", "coupon_redeemed", "ticket_opened", "ticket_resolved",
    "review", "survey", "login", "app_open", "subscription_start", "subscription_renew", "subscription_pause",
    "subscription_downgrade", "subscription_cancel", "payment_failed", "points_earned", "points_redeemed",
    "referral", "consent_given", "consent_withdrawn",
)  # fmt: skip

# quarantine: what could not be read, kept whole
FILE = Column("file", pl.String, "input file the row came from")
ROW = Column("row", pl.Int64, "row of that file: line for text (the header is line 1), 1-based record for Parquet")
REASON = Column("reason", pl.String, "why it could not be used")
VALUES = Column("values", pl.String, "the row as JSON")
QUARANTINE = Table("quarantine", (FILE, ROW, REASON, VALUES))

# quality findings, worst first
TOPIC = Column("topic", pl.String, "rows, identity, money, time, span, repeat, season, refunds, consent")
LEVEL = Column("level", pl.String, "problem, warning or fact")
FINDING = Column("finding", pl.String, "one sentence with numbers")
CURE = Column("cure", pl.String, "what to do about it", "nothing to do")
QUALITY = Table("quality", (LEVEL, TOPIC, FINDING, CURE))

# features: the keys; the rest is the catalogue of features/
FEATURES = Table("features", (CUSTOMER_ID, CUSTOMER, CUTOFF))

# segments
SEGMENT = Column("segment", pl.Int32, "identity kept from fit to fit")
SEGMENT_NAME = Column("segment_name", pl.String, "plain words")
LIFECYCLE = Column("lifecycle", pl.String, "new, active, cooling, dormant, lapsed or suppressed")
SEGMENTS = Table("segments", (CUSTOMER_ID, CUTOFF, SEGMENT, SEGMENT_NAME, LIFECYCLE))

# what the segments are: one row each
DESCRIPTION = Column("description", pl.String, "one sentence with numbers")
SETS_APART = Column("sets_apart", pl.String, "traits in which the segment differs most from the base", "nothing does")
CUSTOMERS = Column("customers", pl.Int64, "customers")
SHARE = Column("share", pl.Float64, "0 to 1")
SPEND_SHARE = Column("spend_share", pl.Float64, "share of the base's net spend", "the base has no net spend")
SEGMENT_PROFILES = Table(
    "segment_profiles", (SEGMENT, SEGMENT_NAME, DESCRIPTION, SETS_APART, CUSTOMERS, SHARE), (SPEND_SHARE,)
)

# who moved where between two cutoffs
DIMENSION = Column("dimension", pl.String, "segment or lifecycle")
FROM_GROUP = Column("from", pl.String, "segment name or stage at the earlier cutoff, or 'not there yet'")
TO_GROUP = Column("to", pl.String, "segment name or stage at the later cutoff, or 'no longer there'")
MIGRATION = Table("migration", (DIMENSION, FROM_GROUP, TO_GROUP, CUSTOMERS, SHARE))

# what became of segments from fit to fit
FIT = Column("fit", pl.Int32, "1 for the first fit of a base, then one more for each")
CHANGE = Column("change", pl.String, "kept, birth, split (from other), merge (into other) or death")
OTHER_SEGMENT = Column("other_segment", pl.Int32, "split: parent; merge: heir", "neither a split nor a merge")
OVERLAP = Column("overlap", pl.Float64, "kept: Jaccard of members; split and merge: share of members", "birth or death")
LINEAGE = Table("lineage", (FIT, CUTOFF, CHANGE, SEGMENT, SEGMENT_NAME, OTHER_SEGMENT, OVERLAP))

# forecasts
MODEL = Column("model", pl.String, "rung that made the row")
P_CHURN = Column("p_churn", pl.Float64, "P(no order within the horizon), 0 to 1")
EXPECTED_ORDERS = Column("expected_orders", pl.Float64, "orders within the horizon")
EXPECTED_SPEND = Column("expected_spend", pl.Float64, "account currency, net of refunds, within the horizon")
CLV = Column("clv", pl.Float64, "account currency, discounted margin within the horizon, from the cutoff")
CLV_LOWER = Column("clv_lower", pl.Float64, "lower end of the 90 % interval of clv")
CLV_UPPER = Column("clv_upper", pl.Float64, "upper end of the 90 % interval of clv")
NEXT_ORDER_DAYS = Column("next_order_days", pl.Float64, "median days from the cutoff to the next order", "more likely never")
FORECASTS = Table(
    "forecasts",
    (CUSTOMER_ID, CUTOFF, HORIZON_DAYS, MODEL, P_CHURN, EXPECTED_ORDERS, EXPECTED_SPEND, CLV, CLV_LOWER, CLV_UPPER,
     NEXT_ORDER_DAYS),
)  # fmt: skip

# what came true within the horizon
REALISED_ORDERS = Column("realised_orders", pl.Float64, "orders within the horizon")
REALISED_SPEND = Column("realised_spend", pl.Float64, "account currency, net of refunds, within the horizon")
REALISED = Table("realised", (CUSTOMER_ID, CUTOFF, HORIZON_DAYS, REALISED_ORDERS, REALISED_SPEND))

# decisions (the quadrant is the first; actions join later)
QUADRANT = Column("quadrant", pl.String, "save, advocate, let_go or nurture")
VALUE_IF_RETAINED = Column("value_if_retained", pl.Float64, "account currency: clv given at least one more order")
VALUE_AT_STAKE = Column("value_at_stake", pl.Float64, "account currency: p_churn × clv if retained")
DECISIONS = Table("decisions", (CUSTOMER_ID, CUTOFF, HORIZON_DAYS, QUADRANT, VALUE_IF_RETAINED, VALUE_AT_STAKE))
EXPECTED_CHURNERS = Column("expected_churners", pl.Float64, "customers: sum of p_churn")
QUADRANTS = Table("quadrants", (CUTOFF, QUADRANT, CUSTOMERS, SHARE, EXPECTED_CHURNERS, CLV, VALUE_AT_STAKE))
