"""Campaigns, journeys before a loss, money, segments and identity: what was planted is in the events."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from retinue.schema import (
    ACTION_TIME,
    ALIVE,
    AMOUNT,
    CAMPAIGN,
    CAUSE,
    CUSTOMER_ID,
    DEVICE,
    DISCOUNT,
    EFFECT_ORDERS,
    EFFECT_SPEND,
    EVENT_TIME,
    EVENT_TYPE,
    FIRST_ORDER_TIME,
    IS_GUEST,
    KNOWN_TIME,
    LATENT_SEGMENT,
    LIFETIME_DAYS,
    MEAN_ORDER_VALUE,
    ORDER,
    ORDER_ID,
    ORDER_RATE,
    PERSON,
    PROPENSITY,
    RATING,
    REFUND,
    SEVERITY,
    SHOWN_CAUSE,
    TREATED,
    InputError,
)
from retinue.worlds import Kind, Spec, World, simulate
from retinue.worlds.spec import (
    Arrivals,
    Campaigns,
    Customers,
    Identity,
    Journeys,
    Law,
    Process,
    Returns,
    Spend,
    Spread,
    Targeting,
)
from tests.worlds import made

CAMPAIGN_DAY = 150


def campaign_world(process: Process, targeting: Targeting, count: int) -> pl.DataFrame:
    """One campaign: the actions with orders and spend in the 60 days after, `after` and `spent`."""
    who = Customers(Spread(1 / 20, 0.7), Spread(1 / 200, 0.5), regularity=Spread(2.0))
    campaigns = Campaigns(1_000, CAMPAIGN_DAY, lift=2.0, targeting=targeting, discount=0.2, effect_days=60)
    spec = Spec(
        process, 240, customers=who, arrivals=Arrivals(arrival_days=60), campaigns=campaigns, cutoffs=()
    )
    world = simulate(spec, count, 8)
    start = spec.start + timedelta(days=CAMPAIGN_DAY)
    orders = world.events.filter(
        pl.col(EVENT_TYPE) == ORDER,
        pl.col(EVENT_TIME) > start,
        pl.col(EVENT_TIME) <= start + timedelta(days=60),
    )
    after = orders.group_by(CUSTOMER_ID).agg(pl.len().alias("after"), pl.col(AMOUNT).sum().alias("spent"))
    assert world.actions[ACTION_TIME].unique().to_list() == [start]
    return world.actions.join(after, on=CUSTOMER_ID, how="left").with_columns(
        pl.col("after", "spent").fill_null(0)
    )


def lift_and_error(table: pl.DataFrame, column: str, weighted: bool) -> tuple[float, float]:
    """Difference of treated and untreated means with its standard error, by inverse propensity if weighted."""
    y, t, e = (table[c].to_numpy().astype(float) for c in (column, TREATED, PROPENSITY))
    if not weighted:
        e = np.full(len(y), t.mean())
    each = t * (y - y[t == 0].mean()) / e - (1 - t) * (y - y[t == 0].mean()) / (1 - e)
    return float(each.mean()), float(each.std() / np.sqrt(len(y)))


@pytest.mark.parametrize(
    "process", [Process.pareto_nbd, Process.mbg_cnbd_k, Process.bg_bb, Process.two_state]
)
def test_a_randomised_campaign_adds_what_the_truth_says(process: Process) -> None:
    table = campaign_world(process, Targeting.randomised, 6_000)
    assert (table[PROPENSITY] == 0.5).all()
    for column, effect in (("after", EFFECT_ORDERS), ("spent", EFFECT_SPEND)):
        lift, error = lift_and_error(table, column, weighted=False)
        assert lift > 4 * error
        assert lift == pytest.approx(table[effect].mean(), abs=3.5 * error)


def test_a_targeted_campaign_misleads_whoever_forgets_the_targeting() -> None:
    table = campaign_world(Process.pareto_nbd, Targeting.targeted, 15_000)
    effect = table[EFFECT_ORDERS].mean()
    naive, error = lift_and_error(table, "after", weighted=False)
    assert naive < effect - 5 * error  # type: ignore[operator]
    weighted, error = lift_and_error(table, "after", weighted=True)
    assert weighted == pytest.approx(effect, abs=3.5 * error)


def test_the_lost_cannot_be_moved_and_pushed_orders_name_their_campaign() -> None:
    world = made.world(Kind.promotions)
    lost = world.actions.filter(~pl.col(ALIVE))
    assert lost[EFFECT_ORDERS].sum() == lost[EFFECT_SPEND].sum() == 0 < len(lost)
    pushed = world.events.filter((pl.col(EVENT_TYPE) == ORDER) & pl.col(CAMPAIGN).is_not_null())
    treated = world.actions.filter(TREATED).select(CUSTOMER_ID, CAMPAIGN, ACTION_TIME)
    matched = pushed.join(treated, on=[CUSTOMER_ID, CAMPAIGN], how="inner")
    assert len(matched) == len(pushed) > 500
    assert (matched[EVENT_TIME] >= matched[ACTION_TIME]).all()
    assert (pushed[DISCOUNT] / (pushed[AMOUNT] + pushed[DISCOUNT])).median() == pytest.approx(0.1, abs=1e-3)
    exposed = world.events.filter(pl.col(EVENT_TYPE) == "campaign")
    assert len(exposed) == len(treated)


@pytest.fixture(scope="module")
def journeys() -> pl.DataFrame:
    """Events of customers who were lost within the data, with cause and days to the loss."""
    who = Customers(Spread(1 / 10, 0.5), Spread(1 / 300, 0.5))
    spec = Spec(
        days=600, customers=who, journeys=Journeys(lead_days=60, strength=5), details=True, cutoffs=()
    )
    world = simulate(spec, 3_000, 6)
    people = world.customers.filter(pl.col(LIFETIME_DAYS) > 130)
    lost = pl.col(FIRST_ORDER_TIME) + pl.duration(microseconds=pl.col(LIFETIME_DAYS) * 86_400e6)
    left = (pl.col("lost") - pl.col(EVENT_TIME)).dt.total_microseconds() / 86_400e6
    known = people.with_columns(lost.alias("lost")).filter(pl.col("lost") < spec.start + timedelta(days=600))
    return world.events.join(known, on=CUSTOMER_ID).with_columns(left.alias("left"))


def change(events: pl.DataFrame, event_type: str, cause: str) -> float:
    """Events in the last 60 days before the loss, as a multiple of those in the 60 days before these."""
    mine = events.filter(pl.col(EVENT_TYPE) == event_type, pl.col(CAUSE) == cause)
    late = mine.filter(pl.col("left").is_between(0, 60))
    early = mine.filter(pl.col("left").is_between(60, 120))
    return len(late) / len(early)


@pytest.mark.parametrize(
    ("event_type", "moves"),
    [
        ("ticket_opened", {"service": 5.0}),
        ("review", {"quality": 5.0}),
        ("visit", {"price": 5.0, "engagement": 0.2}),
        ("email_open", {"engagement": 0.2}),
        ("email_click", {"price": 5.0, "engagement": 0.2}),
    ],
)
def test_rates_move_before_a_loss_as_its_cause_says(
    journeys: pl.DataFrame, event_type: str, moves: dict[str, float]
) -> None:
    for cause in ("price", "service", "quality", "engagement"):
        assert change(journeys, event_type, cause) == pytest.approx(moves.get(cause, 1.0), rel=0.3)


def test_the_tone_changes_with_the_cause(journeys: pl.DataFrame) -> None:
    late = pl.col("left").is_between(0, 60)
    for event_type, column, cause, worse in (
        ("ticket_opened", SEVERITY, "service", 0.3),
        ("review", RATING, "quality", -2.0),
        (ORDER, DISCOUNT, "price", 5.0),
    ):
        mine = journeys.filter(pl.col(EVENT_TYPE) == event_type)
        shift = [
            float(
                mine.filter(late, who)[column].to_numpy().mean()
                - mine.filter(~late, who)[column].to_numpy().mean()
            )
            for who in (pl.col(CAUSE) == cause, pl.col(CAUSE) != cause)
        ]
        assert shift[0] / worse > 1
        assert abs(shift[1] / worse) < 0.2


def test_causes_are_planted_only_where_there_is_a_loss() -> None:
    rich = made.world(Kind.rich).customers
    assert (
        rich.filter(pl.col(LIFETIME_DAYS).is_null())[CAUSE].null_count() == rich[LIFETIME_DAYS].null_count()
    )
    assert rich[CAUSE].drop_nulls().value_counts(normalize=True).sort(CAUSE)[
        "proportion"
    ].to_list() == pytest.approx([0.3, 0.3, 0.15, 0.25], abs=0.03)
    assert made.world(Kind.pareto_nbd).customers[CAUSE].null_count() == made.CUSTOMERS


def test_a_cause_shows_at_a_cutoff_from_its_lead_to_the_loss() -> None:
    world = made.world(Kind.rich)
    both = world.truth.join(world.customers, on=CUSTOMER_ID)
    lost = pl.col(FIRST_ORDER_TIME) + pl.duration(microseconds=pl.col(LIFETIME_DAYS) * 86_400e6)
    shows = (lost > made.CUTOFF) & (lost <= made.CUTOFF + timedelta(days=Journeys().lead_days))
    table = both.with_columns(shows.fill_null(False).alias("shows"))
    assert table["shows"].sum() > 100
    named = table.filter("shows")
    assert named[SHOWN_CAUSE].equals(named[CAUSE].alias(SHOWN_CAUSE))
    assert named[SHOWN_CAUSE].null_count() == 0
    assert table.filter(~pl.col("shows"))[SHOWN_CAUSE].null_count() == table["shows"].not_().sum()


def money_world(spend: Spend, returns: Returns) -> World:
    who = Customers(Spread(1 / 5), never_churn=1.0)
    return simulate(Spec(days=365, customers=who, spend=spend, returns=returns, cutoffs=()), 3_000, 2)


@pytest.mark.parametrize("law", list(Law))
def test_order_values_have_the_asked_spread_between_and_within_customers(law: Law) -> None:
    world = money_world(Spend(50, 0.4, 0.8, law), Returns())
    own = world.events.join(world.customers, on=CUSTOMER_ID)
    ratio = own[AMOUNT] / own[MEAN_ORDER_VALUE]
    assert ratio.mean() == pytest.approx(1.0, rel=0.01)
    assert ratio.std() == pytest.approx(0.8, rel=0.04)
    value = world.customers[MEAN_ORDER_VALUE]
    assert value.mean() == pytest.approx(50, rel=0.02)
    assert value.std() / value.mean() == pytest.approx(0.4, rel=0.08)  # type: ignore[operator]


def test_values_drift() -> None:
    events = money_world(Spend(drift_yearly=0.5), Returns()).events.sort(EVENT_TIME)
    first, last = (
        events.filter(pl.col(EVENT_TIME).dt.ordinal_day() <= 30),
        events.filter(pl.col(EVENT_TIME).dt.ordinal_day() > 335),
    )
    assert last[AMOUNT].mean() / first[AMOUNT].mean() == pytest.approx(np.exp(0.5 * 335 / 365), rel=0.06)  # type: ignore[operator]


def test_returns_pay_a_part_back_after_a_lag() -> None:
    events = money_world(Spend(), Returns(0.2, 0.6, 8.0)).events
    orders, refunds = (events.filter(pl.col(EVENT_TYPE) == kind) for kind in (ORDER, REFUND))
    pairs = refunds.join(orders, on=[CUSTOMER_ID, ORDER_ID], suffix="_order")
    assert len(pairs) == len(refunds)
    early = orders.filter(pl.col(EVENT_TIME).dt.ordinal_day() <= 300)
    assert len(pairs.filter(pl.col("event_time_order").dt.ordinal_day() <= 300)) / len(
        early
    ) == pytest.approx(0.2, rel=0.03)
    assert (pairs[AMOUNT] + 0.6 * pairs["amount_order"]).abs().max() < 0.01  # type: ignore[operator]
    lag = (pairs[EVENT_TIME] - pairs["event_time_order"]).dt.total_seconds() / 86_400
    assert lag.min() >= 0  # type: ignore[operator]
    assert lag.mean() == pytest.approx(8.0, rel=0.04)


def test_latent_segments_differ_by_their_factors() -> None:
    people = made.world(Kind.segments).customers
    means = people.group_by(LATENT_SEGMENT).agg(pl.col(ORDER_RATE, MEAN_ORDER_VALUE).mean(), pl.len())
    of = {row[0]: row[1:] for row in means.iter_rows()}
    assert of["regulars"][0] / of["ordinary"][0] == pytest.approx(2.5, rel=0.2)
    assert of["big_baskets"][1] / of["ordinary"][1] == pytest.approx(3.0, rel=0.1)
    assert of["passers_by"][2] / made.CUSTOMERS == pytest.approx(0.35, abs=0.03)


def test_guests_shared_devices_and_late_rows() -> None:
    world = made.world(Kind.identity)
    assert world.identity is not None
    events = world.events.join(world.identity, on=[CUSTOMER_ID, DEVICE])
    assert len(events) == len(world.events)
    assert events.filter(pl.col(EVENT_TYPE) == ORDER)[IS_GUEST].mean() == pytest.approx(0.1, abs=0.01)
    assert events.filter(IS_GUEST).group_by(CUSTOMER_ID).agg(pl.col(ORDER_ID).n_unique())[ORDER_ID].max() == 1
    refunds = events.filter(pl.col(EVENT_TYPE) == REFUND).select(ORDER_ID, CUSTOMER_ID)
    placed = events.filter(pl.col(EVENT_TYPE) == ORDER).select(ORDER_ID, CUSTOMER_ID)
    assert len(refunds.join(placed, on=[ORDER_ID, CUSTOMER_ID])) == len(refunds) > 100
    sharers = world.identity.group_by(DEVICE).agg(pl.col(PERSON).n_unique())[PERSON]
    assert (sharers == 2).sum() * 2 / made.CUSTOMERS == pytest.approx(0.1, abs=0.005)
    assert sharers.max() == 2
    late = (world.events[KNOWN_TIME] - world.events[EVENT_TIME]).dt.total_seconds() / 86_400
    assert (late > 0).mean() == pytest.approx(0.05, abs=0.008)
    assert late.filter(late > 0).mean() == pytest.approx(5.0, rel=0.15)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Spread(0.0), "mean=0.0: must be above 0."),
        (lambda: Customers(never_churn=1.2), "never_churn=1.2: must lie between 0 and 1."),
        (lambda: Identity(guest_share=-0.1), "identity.guest_share=-0.1"),
        (lambda: Journeys(causes=(("boredom", 1.0),)), "journeys.causes: must be shares of"),
        (lambda: Spec(horizons_days=()), "horizons_days=()"),
    ],
)
def test_wrong_options_are_told_in_one_line(make: object, message: str) -> None:
    with pytest.raises(InputError) as told:
        make()  # type: ignore[operator]
    assert message in str(told.value)
    assert "\n" not in str(told.value)
