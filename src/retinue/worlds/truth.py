"""The truth tables of a world: what each customer was, would do, and why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from retinue.schema import (
    ACTION_TIME,
    ALIVE,
    CAMPAIGN,
    CAUSE,
    CUSTOMER_ID,
    CUTOFF,
    DROPOUT_CHANCE,
    DROPOUT_RATE,
    EFFECT_ORDERS,
    EFFECT_SPEND,
    EXPECTED_ORDERS,
    EXPECTED_SPEND,
    FIRST_ORDER_TIME,
    HORIZON_DAYS,
    INTENSITY,
    LATENT_SEGMENT,
    LIFETIME_DAYS,
    MEAN_ORDER_VALUE,
    ORDER_RATE,
    P_CHURN,
    PROPENSITY,
    REGULARITY,
    SHOWN_CAUSE,
    TARGETED,
    TREATED,
    TRUE_ACTIONS,
    TRUE_CUSTOMERS,
    TRUTH,
    UTC_TIME,
    InputError,
)
from retinue.worlds.clock import YEAR_DAYS, Array, Indices, Mask
from retinue.worlds.journeys import Causes
from retinue.worlds.outlook import Scene, intensity, life, path, states
from retinue.worlds.sales import Sales
from retinue.worlds.spec import Spec

CHUNK = 4_096
DAY = timedelta(days=1)
DAY_US = 86_400_000_000


def last_instant(spec: Spec) -> datetime:
    """The last instant that the data cover."""
    return spec.start + spec.days * DAY - timedelta(microseconds=1)


def asked(spec: Spec) -> list[tuple[datetime, float]]:
    """Cutoffs of the truth with their day since the start of the data.

    Raises:
        InputError: one lies before the first day of the data or after its last.
    """
    days = []
    for moment in spec.cutoffs if spec.cutoffs is not None else (last_instant(spec),):
        utc = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        day = (utc - spec.start) / DAY
        if not 0 <= day < spec.days:
            data = f"{spec.start:%Y-%m-%d}, {spec.days} days"
            raise InputError(f"cutoffs: {utc:%Y-%m-%d} lies outside the data ({data}). Ask inside.")
        days.append((utc, day))
    return days


def times(spec: Spec, day: Array) -> pl.Series:
    """Instants of days since the start of the data."""
    micros = np.rint(day * DAY_US).astype(np.int64) + int(spec.start.timestamp()) * 1_000_000
    return pl.Series(micros).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def outlooks(scene: Scene, sales: Sales, causes: Causes, ids: pl.Series) -> pl.DataFrame:
    """The `truth` table: customers who had come by the cutoff, at each cutoff and horizon.

    Expectations from own parameters and state at the cutoff, campaigns as in `Pushes.increments`. They do not
    know what journeys give away about a coming loss: a forecaster that reads tickets and visits may beat them.
    """
    spec = scene.spec
    horizons = tuple(sorted(set(spec.horizons_days)))
    parts = []
    for moment, at in asked(spec):
        state, alive = states(scene, at), scene.is_alive(at)
        come = np.flatnonzero(scene.people.born <= at)
        orders, spend, churn = _sums(scene, np.flatnonzero(alive), at, horizons, state)
        shown = causes.shown(alive, at)
        now = intensity(scene, at, np.where(alive, state, 0.0)) + scene.pushes.rate(
            scene.people, scene.clock, at
        )
        for place, horizon in enumerate(horizons):
            owed = sales.pending_refunds(len(scene.people), at, horizon)
            columns = {
                CUSTOMER_ID: ids.gather(come),
                ALIVE: alive[come],
                SHOWN_CAUSE: shown.gather(come),
                INTENSITY: np.where(alive, now, 0.0)[come],
                P_CHURN: churn[come, place],
                EXPECTED_ORDERS: orders[come, place],
                EXPECTED_SPEND: (spend[:, place] - owed)[come],
            }
            frame = pl.DataFrame(columns)
            keys = [pl.lit(moment, UTC_TIME).alias(CUTOFF), pl.lit(horizon, pl.Int32).alias(HORIZON_DAYS)]
            parts.append(frame.with_columns(keys).select(TRUTH.schema.names()))
    return TRUTH.check(pl.concat(parts)) if parts else TRUTH.schema.to_frame()


def _sums(
    scene: Scene, living: Indices, at: float, horizons: tuple[int, ...], state: Array
) -> tuple[Array, Array, Array]:
    """Expected orders, spend before pending refunds, and chance of no order; (customers, horizons) each."""
    shape = (len(scene.people), len(horizons))
    orders, spend, churn = np.zeros(shape), np.zeros(shape), np.ones(shape)
    discount = scene.spec.campaigns.discount if scene.spec.campaigns else 0.0
    for who in np.array_split(living, max(1, -(-len(living) // CHUNK))):
        if not len(who):
            continue
        ahead = path(scene, who, at, horizons, state)
        drift = np.exp(scene.spec.spend.drift_yearly * ahead.when / YEAR_DAYS)
        for place, horizon in enumerate(horizons):
            inside = ahead.up_to(at + horizon)
            worth = inside * drift * (1 - _refunded(scene.spec, at + horizon - ahead.when))
            orders[who, place] = ((ahead.orders + ahead.pushed) * inside).sum(1)
            paid = ((ahead.orders + (1 - discount) * ahead.pushed) * worth).sum(1)
            spend[who, place] = scene.people.value[who] * paid
            churn[who, place] = np.clip(1 - (ahead.first * inside).sum(1), 0.0, 1.0)
    return orders, spend, churn


def _refunded(spec: Spec, days_left: Array) -> Array:
    """Share of an order's amount that is paid back within so many days, in expectation."""
    returns = spec.returns
    return np.asarray(
        -returns.share * returns.part * np.expm1(-np.maximum(days_left, 0.0) / returns.lag_days)
    )


def actions(scene: Scene, ids: pl.Series, names: list[str]) -> pl.DataFrame:
    """The `true_actions` table: each campaign × customer who could be reached, with what treatment adds (or would).

    Effects are expectations on the campaign's day from own parameters, net of refunds; zero for the lost.
    """
    plan = scene.spec.campaigns
    if plan is None or not len(scene.pushes.days):
        return TRUE_ACTIONS.schema.to_frame()
    parts = []
    for number, day in enumerate(scene.pushes.days):
        eligible = np.flatnonzero(scene.pushes.eligible[:, number])
        alive = scene.is_alive(float(day))
        orders, spend = _effect(scene, number, alive, plan.effect_days)
        parts.append(
            pl.DataFrame(
                {
                    CUSTOMER_ID: ids.gather(eligible),
                    CAMPAIGN: pl.repeat(names[number], len(eligible), eager=True),
                    ACTION_TIME: times(scene.spec, np.full(len(eligible), day)),
                    TARGETED: np.full(len(eligible), scene.pushes.targeted[number]),
                    PROPENSITY: scene.pushes.propensity[eligible, number],
                    TREATED: scene.pushes.treated[eligible, number],
                    ALIVE: alive[eligible],
                    HORIZON_DAYS: pl.repeat(plan.effect_days, len(eligible), dtype=pl.Int32, eager=True),
                    EFFECT_ORDERS: orders[eligible],
                    EFFECT_SPEND: spend[eligible] * (1 - plan.discount),
                }
            )
        )
    return TRUE_ACTIONS.check(pl.concat(parts))


def _effect(scene: Scene, number: int, alive: Mask, effect_days: int) -> tuple[Array, Array]:
    """Orders and undiscounted spend that campaign `number` adds to each customer it reaches; (customers,) each."""
    at = float(scene.pushes.days[number])
    orders, spend = np.zeros(len(alive)), np.zeros(len(alive))
    state, living = states(scene, at), np.flatnonzero(alive)
    people = scene.people
    for who in np.array_split(living, max(1, -(-len(living) // CHUNK))):
        if not len(who):
            continue
        ahead = life(scene, who, at, effect_days, state)
        reach = scene.pushes.reach(number, ahead.hi) - scene.pushes.reach(number, ahead.lo)
        added = (
            (people.rate * scene.pushes.lift)[who][:, None]
            * reach
            * ahead.alive
            * ahead.up_to(at + effect_days)
        )
        drift = np.exp(scene.spec.spend.drift_yearly * ahead.when / YEAR_DAYS)
        orders[who] = added.sum(1)
        left = 1 - _refunded(scene.spec, at + effect_days - ahead.when)
        spend[who] = people.value[who] * (added * drift * left).sum(1)
    return orders, spend


def customers(scene: Scene, ids: pl.Series, cause: pl.Series) -> pl.DataFrame:
    """The `true_customers` table: each customer's own parameters."""
    people, lost = scene.people, scene.lives.lost
    ends = np.isfinite(lost)
    names = [s.name for s in scene.spec.segments] or ["all"]
    lifetime = pl.Series(np.where(ends, lost, 0.0) - np.where(ends, people.born, 0.0)).set(
        pl.Series(~ends), None
    )
    frame = pl.DataFrame(
        {
            CUSTOMER_ID: ids,
            FIRST_ORDER_TIME: times(scene.spec, people.born),
            LIFETIME_DAYS: lifetime,
            ORDER_RATE: people.rate,
            DROPOUT_RATE: people.dropout,
            DROPOUT_CHANCE: people.chance,
            REGULARITY: people.regularity,
            MEAN_ORDER_VALUE: people.value,
            LATENT_SEGMENT: pl.Series(names, dtype=pl.String).gather(people.segment),
            CAUSE: cause,
        }
    )
    return TRUE_CUSTOMERS.check(frame)
