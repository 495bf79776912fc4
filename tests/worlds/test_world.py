"""A world as a whole: its tables, its seed and its files."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from retinue.events.cleaning import customer_code
from retinue.schema import (
    BASE,
    CUSTOMER,
    CUSTOMER_ID,
    EVENT_TIME,
    EVENT_TYPE,
    EVENTS,
    ORDER,
    TRUE_ACTIONS,
    TRUE_CUSTOMERS,
    TRUE_IDENTITY,
    TRUTH,
    InputError,
)
from retinue.worlds import Kind, simulate, spec_of, world, write_world
from tests.worlds import made

KINDS = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)


@KINDS
def test_tables_keep_their_contracts(kind: Kind) -> None:
    world = made.world(kind)
    for table, frame in ((EVENTS, world.events), (TRUTH, world.truth), (TRUE_CUSTOMERS, world.customers)):
        table.check(frame)
    TRUE_ACTIONS.check(world.actions)
    if world.identity is not None:
        TRUE_IDENTITY.check(world.identity)
    start = spec_of(kind, made.DAYS).start
    assert world.events[EVENT_TIME].is_between(start, start + timedelta(days=made.DAYS), closed="left").all()


@KINDS
def test_codes_are_those_that_events_would_give(kind: Kind) -> None:
    events = made.world(kind).events
    assert events[CUSTOMER].equals(customer_code(events.select(BASE, CUSTOMER_ID)))


@KINDS
def test_same_seed_same_world_other_seed_other_world(kind: Kind) -> None:
    spec = replace(spec_of(kind, 120), horizons_days=(30,))
    one, same, other = (simulate(spec, 60, seed) for seed in (1, 1, 2))
    for name in ("events", "truth", "customers", "actions"):
        assert getattr(one, name).equals(getattr(same, name))
    assert not one.events.equals(other.events)


@KINDS
def test_a_base_of_one_customer_is_a_base(kind: Kind) -> None:
    world = simulate(spec_of(kind, 3), 1, 4)
    assert len(world.customers) == 1
    assert world.events[EVENT_TYPE].is_in([ORDER]).sum() == len(
        world.events.filter(pl.col(EVENT_TYPE) == ORDER)
    )


def test_a_new_part_leaves_the_draws_of_the_others_alone() -> None:
    plain, rich = made.world(Kind.pareto_nbd), made.world(Kind.rich)
    orders = rich.events.filter(pl.col(EVENT_TYPE) == ORDER)
    assert orders.select(CUSTOMER_ID, EVENT_TIME).equals(plain.events.select(CUSTOMER_ID, EVENT_TIME))


def test_a_written_world_reads_back_and_replaces_the_last(tmp_path: Path) -> None:
    said = write_world("retail", 50, 3, tmp_path, days=200, horizons_days=(30,))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "events.parquet", "true_actions.parquet", "true_customers.parquet", "true_identity.parquet", "truth.parquet",
    ]  # fmt: skip
    assert EVENTS.check(pl.read_parquet(tmp_path / "events.parquet")).height == said["events"]
    assert said["observation_end"] == "2023-12-31T23:59:59.999999+00:00"
    assert said["first_day"] == "2023-06-15"
    write_world("bg_nbd", 50, 3, tmp_path, days=200)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "events.parquet", "true_customers.parquet", "truth.parquet",
    ]  # fmt: skip
    spec = spec_of(Kind.bg_nbd, 200)
    assert pl.read_parquet(tmp_path / "truth.parquet").equals(simulate(spec, 50, 3).truth)


def test_a_killed_write_leaves_no_half_written_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_world("bg_nbd", 20, 1, tmp_path, days=50)
    broken = replace(simulate(spec_of(Kind.bg_nbd, 50), 20, 1), events=None)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        world.write(broken, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["true_customers.parquet", "truth.parquet"]


def test_unknown_kinds_and_empty_bases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="kind=pareto: must be one of pareto_nbd, bg_nbd"):
        write_world("pareto", 10, 1, tmp_path)
    with pytest.raises(InputError, match="customers=0"):
        write_world("bg_nbd", 0, 1, tmp_path)
