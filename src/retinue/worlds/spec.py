"""What a world is made of: a process of orders, how customers differ, and effects that compose with any process."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import Enum

from retinue.schema import InputError


class Process(Enum):
    """How orders come and customers go."""

    pareto_nbd = "pareto_nbd"
    bg_nbd = "bg_nbd"
    mbg_cnbd_k = "mbg_cnbd_k"
    pareto_ggg = "pareto_ggg"
    bg_bb = "bg_bb"
    two_state = "two_state"


class Law(Enum):
    """Family of a positive quantity across customers, and of order values within one."""

    gamma = "gamma"
    lognormal = "lognormal"


@dataclass
class Spread:
    """A positive quantity across customers: mean, and cv = standard deviation / mean (0: all alike)."""

    mean: float
    cv: float = 0.0
    law: Law = Law.gamma

    def __post_init__(self) -> None:
        _above("mean", self.mean, 0.0)
        _within("cv", self.cv, 0.0, 100.0)

    @classmethod
    def gamma(cls, shape: float, scale_days: float) -> Spread:
        """Rates per day as BTYD models write them: shape r (or s), scale α (or β) in days."""
        return cls(shape / scale_days, shape**-0.5)


@dataclass
class Chance:
    """A probability across customers: Beta(a, b)."""

    a: float
    b: float

    def __post_init__(self) -> None:
        _above("a", self.a, 0.0)
        _above("b", self.b, 0.0)


@dataclass
class Customers:
    """How customers differ in buying and leaving.

    `dropout` (per day) serves pareto_nbd, pareto_ggg and two_state; `dropout_chance` (per order; of bg_bb per
    opportunity) the others. `buy_chance` and `period_days` are of bg_bb, and take the place of `rate` there;
    `regularity` (gamma shape of the gaps) is of mbg_cnbd_k and pareto_ggg; `on_days` and `off_days` are mean stays
    of two_state. Correlations are those of the normal scores (Gaussian copula).
    """

    rate: Spread = field(default_factory=lambda: Spread(1 / 60, 1.0))
    dropout: Spread = field(default_factory=lambda: Spread(1 / 500, 1.0))
    dropout_chance: Chance = field(default_factory=lambda: Chance(1.0, 7.0))
    regularity: Spread = field(default_factory=lambda: Spread(1.0))
    buy_chance: Chance = field(default_factory=lambda: Chance(4.0, 2.0))
    period_days: float = 30.0
    on_days: float = 60.0
    off_days: float = 120.0
    never_churn: float = 0.0
    rate_dropout: float = 0.0
    rate_spend: float = 0.0

    def __post_init__(self) -> None:
        for name in ("period_days", "on_days", "off_days"):
            _above(name, getattr(self, name), 0.0)
        _within("never_churn", self.never_churn, 0.0, 1.0)
        _within("rate_dropout", self.rate_dropout, -0.99, 0.99)
        _within("rate_spend", self.rate_spend, -0.99, 0.99)


@dataclass
class Segment:
    """A latent part of the base: its share, and factors on what its customers draw."""

    name: str
    share: float
    rate: float = 1.0
    dropout: float = 1.0
    value: float = 1.0
    regularity: float = 1.0

    def __post_init__(self) -> None:
        for name in ("share", "rate", "value", "regularity"):
            _above(f"segment.{name}", getattr(self, name), 0.0)
        _within("segment.dropout", self.dropout, 0.0, 1e6)


@dataclass
class Arrivals:
    """When first orders fall: over `older_days` before the data (cut on the left) and the first `arrival_days` of them.

    `arrival_days` None is the whole window; `growth_yearly` is the log growth of arrivals per year; with `seasonal`
    they also follow the calendar. The drifts are log changes per year of arrival.
    """

    older_days: int = 0
    arrival_days: int | None = None
    growth_yearly: float = 0.0
    seasonal: bool = False
    rate_drift_yearly: float = 0.0
    dropout_drift_yearly: float = 0.0
    spend_drift_yearly: float = 0.0

    def __post_init__(self) -> None:
        _within("older_days", self.older_days, 0, 36_500)
        if self.arrival_days is not None:
            _within("arrival_days", self.arrival_days, 0, 36_500)


@dataclass
class Holiday:
    """A day of the year: orders rise evenly over `lead_days` to `lift` times the usual, and fall back after it."""

    month: int
    day: int
    lift: float
    lead_days: int = 7


@dataclass
class Calendar:
    """Factors on the order rate of all customers alike, by UTC day.

    `week_of_year` (52 factors) and `day_of_week` (7, Monday first) are empty for none. `trend_yearly` is a log change
    per year. From day `regime_day` of the data on, rates and dropout are multiplied by `regime_rate`, `regime_dropout`.
    """

    week_of_year: tuple[float, ...] = ()
    day_of_week: tuple[float, ...] = ()
    holidays: tuple[Holiday, ...] = ()
    trend_yearly: float = 0.0
    regime_day: int | None = None
    regime_rate: float = 1.0
    regime_dropout: float = 1.0

    def __post_init__(self) -> None:
        if len(self.week_of_year) not in (0, 52) or len(self.day_of_week) not in (0, 7):
            counts = f"{len(self.week_of_year)} weekly and {len(self.day_of_week)} daily"
            raise InputError(f"calendar: has {counts} factors. Give 52 and 7, or none.")
        for factor in (
            *self.week_of_year,
            *self.day_of_week,
            self.regime_rate,
            *(h.lift for h in self.holidays),
        ):
            _above("a factor of the calendar", factor, 0.0)
        _within("regime_dropout", self.regime_dropout, 0.0, 1e6)


@dataclass
class Spend:
    """Order values: customer means with `between_cv`, orders around them with `within_cv`.

    `law` gamma is gamma-gamma (within: gamma of shape 1/within_cv²; means: inverse gamma of shape 2 + 1/between_cv²);
    lognormal is log-normal at both levels. `drift_yearly` is a log change per year of all values.
    """

    mean: float = 40.0
    between_cv: float = 0.6
    within_cv: float = 0.5
    law: Law = Law.gamma
    drift_yearly: float = 0.0
    margin: float = 0.35

    def __post_init__(self) -> None:
        _above("spend.mean", self.mean, 0.0)
        _within("spend.between_cv", self.between_cv, 0.0, 100.0)
        _within("spend.within_cv", self.within_cv, 0.0, 100.0)
        _within("spend.margin", self.margin, -1.0, 1.0)


@dataclass
class Returns:
    """A share of orders is paid back in part after a lag, exponential with mean `lag_days`."""

    share: float = 0.0
    part: float = 1.0
    lag_days: float = 10.0

    def __post_init__(self) -> None:
        _within("returns.share", self.share, 0.0, 1.0)
        _within("returns.part", self.part, 0.0, 1.0)
        _above("returns.lag_days", self.lag_days, 0.0)


class Targeting(Enum):
    """Whom a campaign reaches: a coin, customers who have been silent for long, or the two in turn."""

    randomised = "randomised"
    targeted = "targeted"
    both = "both"


@dataclass
class Campaigns:
    """Campaigns every so many days add orders: rate × lift × exp(-days since / decay_days), while the customer lives.

    The lift of a customer is log-normal with mean `lift` and `lift_cv`. Orders that a campaign adds are `discount`
    (share) cheaper. Effects are told over `effect_days`.
    """

    every_days: int = 60
    first_day: int = 30
    share: float = 0.5
    lift: float = 1.0
    lift_cv: float = 0.5
    decay_days: float = 14.0
    discount: float = 0.1
    targeting: Targeting = Targeting.randomised
    effect_days: int = 90

    def __post_init__(self) -> None:
        for name in ("every_days", "lift", "decay_days", "effect_days"):
            _above(f"campaigns.{name}", getattr(self, name), 0.0)
        _within("campaigns.share", self.share, 0.0, 1.0)
        _within("campaigns.discount", self.discount, 0.0, 0.99)
        _within("campaigns.first_day", self.first_day, 0, 36_500)


@dataclass
class Journeys:
    """Visits, e-mails, tickets and reviews around the orders, which move `lead_days` before a loss as its cause says.

    service: tickets × strength, severe, bitter, slow to resolve. quality: reviews × strength with low ratings.
    price: visits and e-mail clicks × strength, deeper discounts. engagement: visits, opens ÷ strength.
    """

    visits_per_order: float = 3.0
    email_days: int = 14
    open_share: float = 0.4
    tickets_per_order: float = 0.08
    reviews_per_order: float = 0.15
    lead_days: float = 60.0
    strength: float = 5.0
    causes: tuple[tuple[str, float], ...] = (
        ("price", 0.3), ("service", 0.25), ("quality", 0.15), ("engagement", 0.3),
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name in ("visits_per_order", "tickets_per_order", "reviews_per_order", "lead_days"):
            _above(f"journeys.{name}", getattr(self, name), 0.0)
        _above("journeys.email_days", self.email_days, 0)
        _within("journeys.strength", self.strength, 1.0, 100.0)
        _within("journeys.open_share", self.open_share, 0.0, 1.0)
        known = {"price", "service", "quality", "engagement"}
        if not self.causes or not {name for name, _ in self.causes} <= known:
            raise InputError(f"journeys.causes: must be shares of {sorted(known)}, is {self.causes}.")


@dataclass
class Identity:
    """Orders as guest (each under an id of its own), devices that two customers share, and records known late."""

    guest_share: float = 0.1
    shared_devices: float = 0.1
    late_share: float = 0.05
    late_days: float = 5.0

    def __post_init__(self) -> None:
        for name in ("guest_share", "shared_devices", "late_share"):
            _within(f"identity.{name}", getattr(self, name), 0.0, 1.0)
        _above("identity.late_days", self.late_days, 0.0)


@dataclass
class Spec:
    """A whole world: one process and its modifiers; the data cover the `days` up to and with `last_day`, UTC.

    Truth is told at each of `cutoffs` (default: the end of the data) for each of `horizons_days`. With `details`,
    orders also carry cost, discount, quantity, category, channel and device.
    """

    process: Process = Process.pareto_nbd
    days: int = 730
    last_day: date = date(2023, 12, 31)
    base: str = "world"
    customers: Customers = field(default_factory=Customers)
    segments: tuple[Segment, ...] = ()
    arrivals: Arrivals = field(default_factory=Arrivals)
    calendar: Calendar = field(default_factory=Calendar)
    spend: Spend = field(default_factory=Spend)
    returns: Returns = field(default_factory=Returns)
    campaigns: Campaigns | None = None
    journeys: Journeys | None = None
    identity: Identity | None = None
    details: bool = False
    cutoffs: tuple[datetime, ...] | None = None
    horizons_days: tuple[int, ...] = (90, 180, 365)

    def __post_init__(self) -> None:
        _within("days", self.days, 1, 36_500)
        if isinstance(self.last_day, datetime):
            raise InputError(f"last_day={self.last_day}: must be a date without a clock, such as 2023-12-31.")
        if not self.horizons_days or min(self.horizons_days) < 1:
            raise InputError(f"horizons_days={self.horizons_days}: must be whole days, such as (90, 365).")

    @property
    def start(self) -> datetime:
        """The first instant of the data: however long the world, its end stays where it is, in the past."""
        midnight = datetime(self.last_day.year, self.last_day.month, self.last_day.day, tzinfo=UTC)
        return midnight - timedelta(days=self.days - 1)


def _above(name: str, value: float, limit: float) -> None:
    if not value > limit:
        raise InputError(f"{name}={value}: must be above {limit:g}.")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(f"{name}={value}: must lie between {low:g} and {high:g}.")
