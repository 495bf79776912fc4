"""A simulated base: ordinary events for everyone, and the truth for the judge."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import polars_hash as plh

from retinue.schema import (
    BASE,
    CAMPAIGN,
    CUSTOMER,
    CUSTOMER_ID,
    EVENT_TIME,
    EVENT_TYPE,
    EVENTS,
    KNOWN_TIME,
    ORDER,
    InputError,
)
from retinue.worlds import truth
from retinue.worlds.clock import clock
from retinue.worlds.identity import blurred, true_identity
from retinue.worlds.journeys import Causes, bargains, journey_rows, plant
from retinue.worlds.kinds import Kind, spec_of
from retinue.worlds.lives import live
from retinue.worlds.outlook import Scene
from retinue.worlds.people import draw
from retinue.worlds.pushes import push
from retinue.worlds.sales import DAY, OWNER, Sales, merged, order_rows, sell
from retinue.worlds.spec import Process, Spec


@dataclass(frozen=True)
class World:
    """A base and what is true of it; tables by schema.py.

    `events` (EVENTS), `truth` (TRUTH: customer × cutoff × horizon), `customers` (TRUE_CUSTOMERS), `actions`
    (TRUE_ACTIONS, empty without campaigns), `identity` (TRUE_IDENTITY, None where every recorded id is a person).
    """

    events: pl.DataFrame
    truth: pl.DataFrame
    customers: pl.DataFrame
    actions: pl.DataFrame
    identity: pl.DataFrame | None


def simulate(spec: Spec, customers: int, seed: int) -> World:
    """Simulates a base of so many customers, those who left before the data begin included.

    The same spec, number of customers and seed give the same world.

    Raises:
        InputError: fewer than one customer, or a cutoff outside the data.
    """
    if customers < 1:
        raise InputError(f"customers={customers}: must be at least 1.")
    truth.asked(spec)
    # one stream per part, so that a change to one part leaves the draws of the others alone
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(8)]
    reach = max(*spec.horizons_days, spec.campaigns.effect_days if spec.campaigns else 0) + 2
    calendar = clock(spec.calendar, spec.start, -spec.arrivals.older_days, spec.days + reach)
    people = draw(spec, customers, calendar, streams[0])
    lives = live(spec, people, calendar, streams[1])
    pushes, added = push(spec, people, calendar, lives, streams[2])
    scene = Scene(spec, people, calendar, lives, pushes)
    sales = sell(spec, people, merged(lives.orders, added), streams[3])
    causes = plant(spec, lives, streams[4])
    ids = _ids(customers)
    events = _events(scene, sales, causes, ids, (streams[5], streams[6]))
    identity = None
    if spec.identity is not None:
        events = blurred(events, customers, spec.identity, streams[7])
        identity = true_identity(events, ids)
    return World(
        events=EVENTS.check(_coded(events, ids if identity is None else None)),
        truth=truth.outlooks(scene, sales, causes, ids),
        customers=truth.customers(scene, ids, causes.labels),
        actions=truth.actions(scene, ids, _campaign_names(spec, len(pushes.days))),
        identity=identity,
    )


def write(world: World, folder: Path) -> None:
    """Writes events, truth and true_customers, and true_actions and true_identity where there are any, as Parquet.

    Each file is whole or not there; events come last, so that a folder with events is a finished world.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"truth": world.truth, "true_customers": world.customers}
    if len(world.actions):
        tables["true_actions"] = world.actions
    if world.identity is not None:
        tables["true_identity"] = world.identity
    for name in (
        "events",
        "true_actions",
        "true_identity",
    ):  # an earlier world's tables must not pass for this one's
        (folder / f"{name}.parquet").unlink(missing_ok=True)
    for name, table in {**tables, "events": world.events}.items():
        unfinished = folder / f".{name}.parquet.unfinished"
        try:
            table.write_parquet(unfinished, compression="zstd")
            os.replace(unfinished, folder / f"{name}.parquet")
        finally:
            unfinished.unlink(missing_ok=True)


def write_world(
    kind: str,
    customers: int,
    seed: int,
    folder: Path,
    days: int = 730,
    horizons_days: tuple[int, ...] = (90, 180, 365),
    cutoffs: tuple[datetime, ...] | None = None,
) -> dict[str, int | str]:
    """Simulates one of the named kinds into a folder; returns what was written, for the log.

    Raises:
        InputError: an unknown kind, or a number out of range.
    """
    if kind not in Kind.__members__:
        raise InputError(f"kind={kind}: must be one of {', '.join(Kind.__members__)}.")
    spec = replace(spec_of(Kind[kind], days), horizons_days=horizons_days, cutoffs=cutoffs)
    world = simulate(spec, customers, seed)
    write(world, folder)
    return {
        "kind": kind,
        "seed": seed,
        "customers": customers,
        "events": len(world.events),
        "orders": int((world.events[EVENT_TYPE] == ORDER).sum()),
        "first_day": f"{spec.start:%Y-%m-%d}",
        "observation_end": truth.last_instant(spec).isoformat(),
        "truth_rows": len(world.truth),
        "actions": len(world.actions),
    }


def _ids(customers: int) -> pl.Series:
    width = max(6, len(str(customers)))
    number = pl.int_range(customers, eager=True).cast(pl.String).str.zfill(width)
    return ("c" + number).alias(CUSTOMER_ID)


def _campaign_names(spec: Spec, count: int) -> list[str]:
    if spec.campaigns is None:
        return []
    days = [spec.campaigns.first_day + number * spec.campaigns.every_days for number in range(count)]
    return [f"campaign-{number + 1:02d}-day-{day}" for number, day in enumerate(days)]


def _events(
    scene: Scene,
    sales: Sales,
    causes: Causes,
    ids: pl.Series,
    streams: tuple[np.random.Generator, np.random.Generator],
) -> pl.DataFrame:
    """All rows inside the data by owner and time, with owner, base and customer_id, known when they happened."""
    spec, people = scene.spec, scene.people
    names = _campaign_names(spec, len(scene.pushes.days))
    deep = bargains(causes, sales.orders) if spec.journeys else None
    rows = order_rows(spec, people, sales, deep, names, streams[0])
    if spec.process is Process.bg_bb:
        rows += _contract_rows(scene)
    if spec.campaigns is not None:
        rows += _exposure_rows(scene, names)
    if spec.journeys is not None:
        rows += journey_rows(spec, spec.journeys, people, scene.lives, causes, streams[1])
    events = rows[0]
    if len(rows) > 1:
        events = pl.concat(rows, how="diagonal").filter((pl.col(DAY) >= 0) & (pl.col(DAY) < spec.days))
    # rounding to microseconds must not push an event past the end
    moments = truth.times(spec, events[DAY].to_numpy()).clip(upper_bound=truth.last_instant(spec))
    events = events.with_columns(moments.alias(EVENT_TIME))
    if len(rows) > 1:
        events = events.sort(OWNER, EVENT_TIME, maintain_order=True)
    who = ids.gather(events[OWNER]).alias(CUSTOMER_ID)
    return events.with_columns(pl.lit(spec.base).alias(BASE), who, pl.col(EVENT_TIME).alias(KNOWN_TIME))


def _contract_rows(scene: Scene) -> list[pl.DataFrame]:
    """A contract starts with the first order and is cancelled at the start of the period that is not paid for."""
    rows = []
    for day, event_type in (
        (scene.people.born, "subscription_start"),
        (scene.lives.lost, "subscription_cancel"),
    ):
        inside = np.flatnonzero((day >= 0) & (day < scene.spec.days))
        frame = pl.DataFrame({OWNER: inside, DAY: day[inside]})
        rows.append(frame.with_columns(pl.lit(event_type).alias(EVENT_TYPE)))
    return rows


def _exposure_rows(scene: Scene, names: list[str]) -> list[pl.DataFrame]:
    owner, number = np.nonzero(scene.pushes.treated)
    frame = pl.DataFrame({OWNER: owner, DAY: scene.pushes.days[number]})
    campaign = pl.Series(names, dtype=pl.String).gather(number).alias(CAMPAIGN)
    return [frame.with_columns(pl.lit("campaign").alias(EVENT_TYPE), campaign)]


def _coded(events: pl.DataFrame, ids: pl.Series | None) -> pl.DataFrame:
    """Adds the customer's code, once per customer where ids are still one per owner; drops the working columns."""
    if ids is None:
        code = _codes(events.select(BASE, CUSTOMER_ID))
    else:
        base = events[BASE].first() if len(events) else ""
        code = _codes(pl.DataFrame({CUSTOMER_ID: ids}).with_columns(pl.lit(base).alias(BASE))).gather(
            events[OWNER]
        )
    first = (BASE, CUSTOMER_ID, CUSTOMER, EVENT_TIME, KNOWN_TIME, EVENT_TYPE)
    rest = [c for c in EVENTS.optional if c in events.columns]
    return events.with_columns(code.alias(CUSTOMER)).select(*first, *rest)


def _codes(keys: pl.DataFrame) -> pl.Series:
    """The code that events/ gives: xxHash64, seed 0, of base + U+001F + id, without the top bit."""
    text = keys.select(pl.concat_str([BASE, CUSTOMER_ID], separator="\x1f").alias(CUSTOMER))
    code = plh.col(CUSTOMER).nchash.xxhash64(seed=0) & pl.lit(2**63 - 1, pl.UInt64)
    return text.select(code.cast(pl.Int64).alias(CUSTOMER)).to_series()
