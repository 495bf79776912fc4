"""Every table that passes between rooms: column name, dtype, unit and null rule. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import polars as pl

UTC_TIME = pl.Datetime("us", "UTC")
SCHEMA_VERSION = 1


MOST_SHOWN = 60


def shown(value: object) -> str:
    """A cell or a name as it stands in messages: control characters escaped, cut at 60 characters."""
    text = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value)[: MOST_SHOWN + 1]
    )
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 1]}…"


def listed(names: Iterable[str], most: int = 20) -> str:
    """Names as they stand in messages, the first so many of them."""
    every = [shown(name) for name in names]
    return ", ".join(every[:most]) + (f" and {len(every) - most:,} more" if len(every) > most else "")


class InputError(Exception):
    """A mistake in the user's data or options: one line with field, rule, value and cure; never shown as a traceback."""

    def __init__(self, message: str) -> None:
        plain = "".join(c if c.isprintable() else " " if c.isspace() else f"\\x{ord(c):02x}" for c in message)
        super().__init__(plain)


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

    def __reduce__(self) -> tuple[Any, ...]:
        return Column, (str(self), self.dtype, self.unit, self.null)


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
CUSTOMER = Column(
    "customer", pl.Int64, "stable 63-bit code of (base, customer_id); customer % shards is the shard"
)
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

# read from the input, and kept as what they make: rows left out, refunds, consent events
CURRENCY = Column("currency", pl.String, "currency code of the row")
STATUS = Column("status", pl.String, "state of an order: paid, shipped, cancelled, …")
REFUNDED_AMOUNT = Column("refunded_amount", pl.Float64, "account currency given back of the row's order")
REFUND_TIME = Column("refund_time", UTC_TIME, "when that was given back")
CONSENT_WORD = Column("consent", pl.String, "whether the customer may be contacted, yes or no")

NUMBERS = (AMOUNT, DISCOUNT, COST, QUANTITY, SEVERITY, SENTIMENT, RATING)
LABELS = (CATEGORY, BRAND, PRODUCT, CHANNEL, DEVICE, CAMPAIGN, REGION)

EVENTS = Table(
    "events",
    (BASE, CUSTOMER_ID, CUSTOMER, EVENT_TIME, KNOWN_TIME, EVENT_TYPE),
    (ORDER_ID, AMOUNT, DISCOUNT, COST, QUANTITY, LINES, CATEGORIES, *LABELS, SEVERITY, SENTIMENT, RATING),
)

ORDER = "order"
REFUND = "refund"
EXPOSED, NOT_EXPOSED = "campaign", "control"  # reached by a campaign; drawn not to be
KNOWN_EVENT_TYPES = (
    ORDER, REFUND, "visit", "view", "cart", "search", "email_sent", "email_open", "email_click", "sms_sent",
    "sms_click", "push_sent", "push_open", "campaign", "control", "coupon_redeemed", "ticket_opened", "ticket_resolved",
    "review", "survey", "login", "app_open", "subscription_start", "subscription_renew", "subscription_pause",
    "subscription_downgrade", "subscription_cancel", "payment_failed", "points_earned", "points_redeemed",
    "referral", "consent_given", "consent_withdrawn",
)  # fmt: skip

# quarantine: what could not be read, kept whole
FILE = Column("file", pl.String, "input file the row came from")
ROW = Column(
    "row", pl.Int64, "row of that file: line for text (the header is line 1), 1-based record for Parquet"
)
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

# the features that forecasts are made from (declared in features/ with all others)
FREQUENCY = Column(
    "frequency", pl.Int64, "repeat transactions: days with an order after the first such day", "no order yet"
)
RECENCY_DAYS = Column("recency_days", pl.Int64, "whole days, first to last day with an order", "no order yet")
T_DAYS = Column("T_days", pl.Int64, "whole days, first day with an order to the cutoff", "no order yet")
NET_SPEND_EVER = Column(
    "net_spend_ever", pl.Float64, "account currency, orders less refunds", "no known amount"
)
VALUED_TRANSACTIONS = Column(
    "valued_transactions", pl.Float64, "days with an order of known amount", "no order yet"
)
REFUND_VALUE_EVER = Column(
    "refund_value_ever", pl.Float64, "account currency paid back, ≥ 0", "no known amount"
)
MARGIN_RATE = Column("margin_rate", pl.Float64, "margin as a share of net spend", "cost unknown")

# segments
SEGMENT = Column("segment", pl.Int32, "identity kept from fit to fit")
SEGMENT_NAME = Column("segment_name", pl.String, "plain words")
LIFECYCLE = Column("lifecycle", pl.String, "new, active, cooling, dormant, lapsed or suppressed")
SEGMENTS = Table("segments", (CUSTOMER_ID, CUTOFF, SEGMENT, SEGMENT_NAME, LIFECYCLE))

# what the segments are: one row each
DESCRIPTION = Column("description", pl.String, "one sentence with numbers")
SETS_APART = Column(
    "sets_apart", pl.String, "traits in which the segment differs most from the base", "nothing does"
)
CUSTOMERS = Column("customers", pl.Int64, "customers")
SHARE = Column("share", pl.Float64, "0 to 1")
SPEND_SHARE = Column("spend_share", pl.Float64, "share of the base's net spend", "the base has no net spend")
SEGMENT_PROFILES = Table(
    "segment_profiles", (SEGMENT, SEGMENT_NAME, DESCRIPTION, SETS_APART, CUSTOMERS, SHARE), (SPEND_SHARE,)
)

# who moved where between two cutoffs
DIMENSION = Column("dimension", pl.String, "segment, lifecycle or quadrant")
FROM_GROUP = Column(
    "from", pl.String, "segment name, stage or quadrant at the earlier cutoff, or 'not there yet'"
)
TO_GROUP = Column(
    "to", pl.String, "segment name, stage or quadrant at the later cutoff, or 'no longer there'"
)
MIGRATION = Table("migration", (DIMENSION, FROM_GROUP, TO_GROUP, CUSTOMERS, SHARE))

WHY = Column("why", pl.String, "which boundary was crossed, and by what")
MOVES = Table("moves", (CUSTOMER_ID, DIMENSION, FROM_GROUP, TO_GROUP, WHY))

# what became of segments from fit to fit
FIT = Column("fit", pl.Int32, "1 for the first fit of a base, then one more for each")
CHANGE = Column("change", pl.String, "kept, birth, split (from other), merge (into other) or death")
OTHER_SEGMENT = Column("other_segment", pl.Int32, "split: parent; merge: heir", "neither a split nor a merge")
OVERLAP = Column(
    "overlap", pl.Float64, "kept: Jaccard of members; split and merge: share of members", "birth or death"
)
LINEAGE = Table("lineage", (FIT, CUTOFF, CHANGE, SEGMENT, SEGMENT_NAME, OTHER_SEGMENT, OVERLAP))

# forecasts
MODEL = Column("model", pl.String, "rung that made the row")
P_CHURN = Column("p_churn", pl.Float64, "P(no order within the horizon), 0 to 1")
EXPECTED_ORDERS = Column("expected_orders", pl.Float64, "orders within the horizon")
EXPECTED_SPEND = Column("expected_spend", pl.Float64, "account currency, net of refunds, within the horizon")
CLV = Column("clv", pl.Float64, "account currency, discounted margin within the horizon, from the cutoff")
CLV_LOWER = Column("clv_lower", pl.Float64, "lower end of the 90 % interval of clv")
CLV_UPPER = Column("clv_upper", pl.Float64, "upper end of the 90 % interval of clv")
NEXT_ORDER_DAYS = Column(
    "next_order_days", pl.Float64, "median days from the cutoff to the next order", "more likely never"
)
ORDERS_SHAPE = Column(
    "orders_shape", pl.Float64, "shape of the negative binomial of orders beyond the first", "not given"
)
SPEND_DEVIATION = Column(
    "spend_deviation",
    pl.Float64,
    "account currency, standard deviation of spend given at least one order",
    "not given",
)
# the reason behind a risk
NAMED_CAUSE = Column(
    "cause",
    pl.String,
    "family of evidence that raises the risk most, or 'no reliable reason'",
    "not looked for",
)
CAUSE_STRENGTH = Column(
    "cause_strength",
    pl.Float64,
    "fall of the log odds of churn, were the evidence that of customers just as silent; 0 without a reason",
    "not looked for",
)
EVIDENCE = Column("evidence", pl.String, "the cause's evidence as a sentence", "no reliable reason")
REASONS = Table("reasons", (CUSTOMER_ID, CUTOFF, NAMED_CAUSE, CAUSE_STRENGTH, EVIDENCE))
FORECASTS = Table(
    "forecasts",
    (CUSTOMER_ID, CUTOFF, HORIZON_DAYS, MODEL, P_CHURN, EXPECTED_ORDERS, EXPECTED_SPEND, CLV, CLV_LOWER, CLV_UPPER,
     NEXT_ORDER_DAYS),
    (ORDERS_SHAPE, SPEND_DEVIATION, NAMED_CAUSE, CAUSE_STRENGTH, EVIDENCE),
)  # fmt: skip

# what came true within the horizon
REALISED_ORDERS = Column("realised_orders", pl.Float64, "orders within the horizon")
REALISED_SPEND = Column("realised_spend", pl.Float64, "account currency, net of refunds, within the horizon")
REALISED = Table("realised", (CUSTOMER_ID, CUTOFF, HORIZON_DAYS, REALISED_ORDERS, REALISED_SPEND))

# backtest: one row per group of customers × origin × model × metric
POPULATION = Column("population", pl.String, "customers scored: all, new or known")
ORIGIN = Column("origin", UTC_TIME, "cutoff of the fold", "all origins together")
METRIC = Column("metric", pl.String, "as in metrics.json: group.name")
BETTER = Column("better", pl.String, "higher, lower, or the number to come close to")
SCORE = Column("score", pl.Float64, "in the metric's unit, mean over seeds", "undefined")
SCORE_ERROR = Column(
    "score_error", pl.Float64, "standard error, clustered by customer, with seeds", "undefined"
)
SEEDS = Column("seeds", pl.Int32, "seeds behind the score; 1 where nothing is random")
SIMPLEST = Column("simplest", pl.String, "model of the paired difference versus_simplest")
VERSUS_SIMPLEST = Column(
    "versus_simplest", pl.Float64, "score less the simplest model's", "undefined, or itself"
)
VERSUS_SIMPLEST_ERROR = Column(
    "versus_simplest_error", pl.Float64, "its paired standard error", "undefined, or itself"
)
BEST = Column("best", pl.String, "model of best score in this metric", "undefined")
VERSUS_BEST = Column("versus_best", pl.Float64, "score less the best model's", "undefined, or itself")
VERSUS_BEST_ERROR = Column(
    "versus_best_error", pl.Float64, "its paired standard error", "undefined, or itself"
)
BACKTEST = Table(
    "backtest",
    (POPULATION, ORIGIN, HORIZON_DAYS, MODEL, METRIC, BETTER, CUSTOMERS, SEEDS, SCORE, SCORE_ERROR, SIMPLEST, VERSUS_SIMPLEST,
     VERSUS_SIMPLEST_ERROR, BEST, VERSUS_BEST, VERSUS_BEST_ERROR),
)  # fmt: skip
SENTINEL = Column("sentinel", pl.String, "labels permuted, or future scrambled")
PASSED = Column("passed", pl.Boolean, "held")
SENTINELS = Table("sentinels", (SENTINEL, MODEL, PASSED, FINDING))

# ledger: every forecast ever written for a base, with what came true
RUN = Column("run", pl.String, "fingerprint of what the forecasts followed from")
SEQUENCE = Column("sequence", pl.Int32, "1 for the first run written, then one more for each")
OBSERVATION_END = Column("observation_end", UTC_TIME, "end of the data when the forecast was written")
COHORT = Column("cohort", pl.String, "year and quarter of the first order", "unknown")
VALUE_TIER = Column(
    "value_tier",
    pl.String,
    "by expected spend within the run, cutoff and horizon: top 10 %, next 40 %, lower half",
)
DECILE = Column("decile", pl.Int32, "1 is the tenth of customers with the most expected spend")
HINDSIGHT = Column("hindsight", pl.Boolean, "written when the whole window had been seen already")
SUPERSEDED = Column(
    "superseded", pl.Boolean, "another run's forecast of the same customer, cutoff and horizon counts"
)
LEDGER_SEGMENT = Column("segment_name", pl.String, "plain words", "no segments were made at the cutoff")
LEDGER = Table(
    "ledger",
    (RUN, SEQUENCE, OBSERVATION_END, CUSTOMER_ID, CUTOFF, HORIZON_DAYS, MODEL, P_CHURN, EXPECTED_ORDERS, EXPECTED_SPEND,
     CLV, CLV_LOWER, CLV_UPPER, COHORT, LEDGER_SEGMENT, VALUE_TIER, DECILE),
)  # fmt: skip
MATURED = Table("matured", (*LEDGER.columns, HINDSIGHT, SUPERSEDED, REALISED_ORDERS, REALISED_SPEND))
GROUP = Column("group", pl.String, "group of customers along the dimension")
RECKONED_CUTOFF = Column("cutoff", UTC_TIME, "last instant of history", "all matured cutoffs together")
PREDICTED_CHURN = Column("predicted_churn", pl.Float64, "mean p_churn, 0 to 1")
REALISED_CHURN = Column("realised_churn", pl.Float64, "share without an order, 0 to 1")
PREDICTED_ORDERS = Column("predicted_orders", pl.Float64, "orders, total")
PREDICTED_SPEND = Column("predicted_spend", pl.Float64, "account currency, total")
SPEND_GAP_ERROR = Column(
    "spend_gap_error", pl.Float64, "account currency, standard error of realised less predicted spend"
)
RECONCILED = Table(
    "reconciled",
    (DIMENSION, GROUP, HORIZON_DAYS, RECKONED_CUTOFF, CUSTOMERS, PREDICTED_CHURN, REALISED_CHURN, PREDICTED_ORDERS,
     REALISED_ORDERS, PREDICTED_SPEND, REALISED_SPEND, SPEND_GAP_ERROR),
)  # fmt: skip
FEATURE = Column("feature", pl.String, "name in the catalogue of features")
EDGES = Column("edges", pl.List(pl.Float64), "inner edges of the reference's bins, ascending")
SHARES = Column(
    "shares", pl.List(pl.Float64), "share of customers: unknown, then each bin (-inf, edge], …, (edge, inf)"
)
FEATURE_PROFILES = Table("feature_profiles", (RUN, CUTOFF, FEATURE, EDGES, SHARES))
PSI = Column(
    "psi", pl.Float64, "population stability index of two distributions, nats; 0.25 and more is a large shift"
)
DRIFT = Table("drift", (RUN, CUTOFF, FEATURE, PSI))

# decisions: the quadrant, and where there is a menu of actions, what is done
QUADRANT = Column("quadrant", pl.String, "save, advocate, let_go or nurture")
VALUE_IF_RETAINED = Column(
    "value_if_retained", pl.Float64, "account currency: clv given at least one more order"
)
VALUE_AT_STAKE = Column("value_at_stake", pl.Float64, "account currency: p_churn × clv if retained")
ACTION = Column("action", pl.String, "name in the menu, or none")
ACTION_CHANNEL = Column("channel", pl.String, "that the action goes through", "no action")
EXPECTED_GAIN = Column(
    "expected_gain",
    pl.Float64,
    "account currency: margin that the action adds within the horizon, before its cost",
)
GAIN_LOWER = Column("gain_lower", pl.Float64, "lower end of the 90 % interval of expected_gain")
GAIN_UPPER = Column("gain_upper", pl.Float64, "upper end of the 90 % interval of expected_gain")
EXPECTED_COST = Column(
    "expected_cost", pl.Float64, "account currency, offers to those who would order anyway included"
)
EFFECT_SOURCE = Column("effect_source", pl.String, "assumed or measured", "no action")
BINDING = Column(
    "binding",
    pl.String,
    "limit that weighs most on the action, or the rule that bars every action; nothing = neither",
)
ALTERNATIVES = Column("alternatives", pl.String, "best actions that may be given, with their net value")
PROPENSITY = Column("propensity", pl.Float64, "chance of what was done, or of treatment, 0 to 1")
EXPLORED = Column("explored", pl.Boolean, "drawn at random, so that effects can be learnt")
POLICY = Column("policy", pl.String, "fingerprint of menu, rules, budget and seed")
CONSENT = Column(
    "consent_state", pl.String, "withdrawn, not withdrawn, or unknown where the events hold none"
)
DECISIONS = Table(
    "decisions",
    (CUSTOMER_ID, CUTOFF, HORIZON_DAYS, QUADRANT, VALUE_IF_RETAINED, VALUE_AT_STAKE),
    (ACTION, ACTION_CHANNEL, EXPECTED_GAIN, GAIN_LOWER, GAIN_UPPER, EXPECTED_COST, EFFECT_SOURCE, BINDING, ALTERNATIVES,
     PROPENSITY, EXPLORED, POLICY, MODEL, CONSENT, NAMED_CAUSE, EVIDENCE),
)  # fmt: skip
EXPORT_CHANGE = Column("change", pl.String, "all, or since the last export: added, changed or removed")
EXPORTS = Table(
    "exports",
    (
        CUSTOMER_ID,
        CUTOFF,
        ACTION,
        ACTION_CHANNEL,
        EXPORT_CHANGE,
        EXPECTED_GAIN,
        EXPECTED_COST,
        NAMED_CAUSE,
        EVIDENCE,
        POLICY,
    ),
)
BUDGET = Column("budget", pl.Float64, "account currency, at most")
CONTACTED = Column("contacted", pl.Int64, "customers with an action")
NET_GAIN = Column("net_gain", pl.Float64, "account currency: expected gain less cost")
NET_LOWER = Column("net_lower", pl.Float64, "lower ends of all gains, less cost")
NET_UPPER = Column("net_upper", pl.Float64, "upper ends of all gains, less cost")
NEXT_UNIT = Column("next_unit", pl.Float64, "net gain that one more unit of budget would bring")
BUDGET_CURVE = Table(
    "budget_curve",
    (BUDGET, CONTACTED, EXPECTED_COST, EXPECTED_GAIN, NET_GAIN, NET_LOWER, NET_UPPER, NEXT_UNIT),
)
LIMIT_NAME = Column("limit", pl.String, "budget, channel budget, agent hours, capacity or floor")
LIMIT_UNIT = Column("unit", pl.String, "account currency, hours, contacts or customers")
ALLOWED = Column("allowed", pl.Float64, "the limit, in its unit")
USED = Column("used", pl.Float64, "in its unit")
PRICE = Column("price", pl.Float64, "account currency that one more unit would bring")
LIMITS = Table("limits", (LIMIT_NAME, LIMIT_UNIT, ALLOWED, USED, PRICE))
EXPECTED_CHURNERS = Column("expected_churners", pl.Float64, "customers: sum of p_churn")
FORECASTS_SUMMARY = Table(
    "forecasts_summary",
    (CUTOFF, HORIZON_DAYS, MODEL, CUSTOMERS, EXPECTED_CHURNERS, EXPECTED_ORDERS, EXPECTED_SPEND, CLV),
)
# what a later scoring of a base changed
PREVIOUS_CUTOFF = Column("previous_cutoff", UTC_TIME, "cutoff of the scoring before")
PREVIOUS_MODEL = Column("previous_model", pl.String, "model of the scoring before")
IN_BOTH = Column("in_both", pl.Int64, "customers with a forecast at both cutoffs")
NEW_CUSTOMERS = Column("new_customers", pl.Int64, "customers with a forecast now and none before")
GONE_CUSTOMERS = Column("gone_customers", pl.Int64, "customers with a forecast before and none now")
RISK_ROSE = Column("risk_rose", pl.Int64, "of those in both: p_churn rose by .1 or more")
RISK_FELL = Column("risk_fell", pl.Int64, "of those in both: p_churn fell by .1 or more")
CLV_BEFORE = Column("clv_before", pl.Float64, "of those in both, together, at the cutoff before")
CLV_NOW = Column("clv_now", pl.Float64, "of those in both, together")
FORECAST_CHANGES = Table(
    "forecast_changes",
    (CUTOFF, PREVIOUS_CUTOFF, HORIZON_DAYS, MODEL, PREVIOUS_MODEL, IN_BOTH, NEW_CUSTOMERS, GONE_CUSTOMERS,
     RISK_ROSE, RISK_FELL, CLV_BEFORE, CLV_NOW),
)  # fmt: skip
QUADRANTS = Table("quadrants", (CUTOFF, QUADRANT, CUSTOMERS, SHARE, EXPECTED_CHURNERS, CLV, VALUE_AT_STAKE))

# key figures
KPI = Column("kpi", pl.String, "as docs/kpis.md defines it")
KPI_UNIT = Column("unit", pl.String, "share, orders, days, account currency, customers, score or ratio")
KPI_VALUE = Column("value", pl.Float64, "at the cutoff", "nothing to count")
KPI_BEFORE = Column("before", pl.Float64, "the same segments.compare_days earlier", "not known then")
SIGNAL = Column("signal", pl.String, "leading (says what will come) or lagging (says what came)")
KPIS = Table("kpis", (KPI, DIMENSION, GROUP, KPI_VALUE, KPI_BEFORE, KPI_UNIT, CUSTOMERS, SIGNAL))
FIRST_BUY = Column("first_buy", pl.String, "channel, category or product of the first order")
LIFE_VALUE = Column("life_value", pl.Float64, "account currency per customer: margin so far and clv")
TO_COHORT = Column(
    "to_cohort",
    pl.Float64,
    "account currency: life_value less that of the same acquisition quarter, in the mean",
)
TO_COHORT_ERROR = Column("to_cohort_error", pl.Float64, "its standard error")
MOST_CAC = Column(
    "most_cac",
    pl.Float64,
    "account currency that a customer may cost to win: life_value over value.ltv_to_cac",
)
LTV_CAC = Column("ltv_to_cac", pl.Float64, "life_value over what a customer costs to win", "cost not given")
PAYBACK_DAYS = Column(
    "payback_days",
    pl.Float64,
    "days after which margin so far covers that cost",
    "not yet, or cost not given",
)
ACQUISITION = Table(
    "acquisition",
    (
        DIMENSION,
        FIRST_BUY,
        CUSTOMERS,
        LIFE_VALUE,
        TO_COHORT,
        TO_COHORT_ERROR,
        MOST_CAC,
        LTV_CAC,
        PAYBACK_DAYS,
    ),
)
TOP_BUYS = Table("top_buys", (SEGMENT, SEGMENT_NAME, DIMENSION, GROUP, Column("orders", pl.Int64, "orders"), SHARE,
    Column("lift", pl.Float64, "share in the segment over share in the base")))  # fmt: skip

# experiments
EXPERIMENT = Column("experiment", pl.String, "name of the experiment")
ARM = Column("arm", pl.String, "what the customer was drawn for")
STRATUM = Column("stratum", pl.String, "part of the base within which the shares hold, or all")
STARTS = Column("starts", UTC_TIME, "outcomes count from after here")
ENDS = Column("ends", UTC_TIME, "last instant whose outcomes count")
ASSIGNMENTS = Table("assignments", (EXPERIMENT, CUSTOMER_ID, ARM, PROPENSITY, STRATUM, STARTS, ENDS))
TREATED_CUSTOMERS = Column("treated", pl.Int64, "customers in the arm")
CONTROL_CUSTOMERS = Column("control", pl.Int64, "customers in the control arm")
CONTROL_MEAN = Column("control_mean", pl.Float64, "mean of the metric per customer")
TREATED_MEAN = Column("treated_mean", pl.Float64, "mean of the metric per customer")
EFFECT = Column("effect", pl.Float64, "difference of means, adjusted by the covariate")
EFFECT_LOWER = Column("effect_lower", pl.Float64, "lower end of its interval at this look")
EFFECT_UPPER = Column("effect_upper", pl.Float64, "upper end of its interval at this look")
P_VALUE = Column("p_value", pl.Float64, "two-sided, of this look alone")
EXPERIMENT_EFFECTS = Table(
    "experiment_effects",
    (ARM, METRIC, GROUP, TREATED_CUSTOMERS, CONTROL_CUSTOMERS, CONTROL_MEAN, TREATED_MEAN, EFFECT, EFFECT_LOWER, EFFECT_UPPER,
     P_VALUE),
)  # fmt: skip

# worlds: what a simulated base knows of itself
ALIVE = Column("alive", pl.Boolean, "not lost at the cutoff, or at the time of the action")
INTENSITY = Column(
    "intensity", pl.Float64, "orders per day at the cutoff, given the customer's own parameters and state"
)
SHOWN_CAUSE = Column(
    "shown_cause",
    pl.String,
    "planted cause of loss that shows in the events at the cutoff",
    "none shows, or lost",
)
TRUTH = Table(
    "truth",
    (
        CUSTOMER_ID,
        CUTOFF,
        HORIZON_DAYS,
        ALIVE,
        SHOWN_CAUSE,
        INTENSITY,
        P_CHURN,
        EXPECTED_ORDERS,
        EXPECTED_SPEND,
    ),
)
FIRST_ORDER_TIME = Column("first_order_time", UTC_TIME, "may lie before the data")
LIFETIME_DAYS = Column("lifetime_days", pl.Float64, "first order to loss", "never lost")
ORDER_RATE = Column("order_rate", pl.Float64, "orders per day while alive, before season and campaigns")
DROPOUT_RATE = Column("dropout_rate", pl.Float64, "hazard of loss per day, before regime shifts")
DROPOUT_CHANCE = Column("dropout_chance", pl.Float64, "chance of loss at each order, before regime shifts")
REGULARITY = Column(
    "regularity", pl.Float64, "gamma shape of the gaps between orders; 1 is Poisson, more is regular"
)
MEAN_ORDER_VALUE = Column("mean_order_value", pl.Float64, "account currency, before drift")
LATENT_SEGMENT = Column("latent_segment", pl.String, "part of the mixture that the customer was drawn from")
CAUSE = Column("cause", pl.String, "planted cause of loss", "none planted, or never lost")
TRUE_CUSTOMERS = Table(
    "true_customers",
    (CUSTOMER_ID, FIRST_ORDER_TIME, LIFETIME_DAYS, ORDER_RATE, DROPOUT_RATE, DROPOUT_CHANCE, REGULARITY,
     MEAN_ORDER_VALUE, LATENT_SEGMENT, CAUSE),
)  # fmt: skip
ACTION_TIME = Column(
    "action_time", UTC_TIME, "when the campaign reached, or would have reached, the customer"
)
TARGETED = Column("targeted", pl.Boolean, "the chance of treatment hangs on the customer's own past")
TREATED = Column("treated", pl.Boolean, "reached by the campaign")
EFFECT_ORDERS = Column(
    "effect_orders", pl.Float64, "orders that treatment adds within the effect's horizon, in expectation"
)
EFFECT_SPEND = Column(
    "effect_spend", pl.Float64, "account currency that treatment adds within the effect's horizon"
)
TRUE_ACTIONS = Table(
    "true_actions",
    (
        CUSTOMER_ID,
        CAMPAIGN,
        ACTION_TIME,
        TARGETED,
        PROPENSITY,
        TREATED,
        ALIVE,
        HORIZON_DAYS,
        EFFECT_ORDERS,
        EFFECT_SPEND,
    ),
)
PERSON = Column("person", pl.String, "the customer id of the person behind the recorded id")
IS_GUEST = Column("is_guest", pl.Boolean, "the recorded id is one guest checkout")
TRUE_IDENTITY = Table("true_identity", (CUSTOMER_ID, PERSON, IS_GUEST, DEVICE))
