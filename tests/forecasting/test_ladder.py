"""Which rung is chosen, and from what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import cos, pi
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retinue.events.store import Manifest, Store
from retinue.forecasting.ladder import SCORES, choose_rung
from retinue.forecasting.rungs import Training
from retinue.options import Options, Rung
from retinue.schema import (
    AMOUNT,
    BASE,
    CUSTOMER,
    CUSTOMER_ID,
    EVENT_TIME,
    EVENT_TYPE,
    KNOWN_TIME,
    MODEL,
    ORDER,
    UTC_TIME,
)
from retinue.worlds import Spec, simulate
from retinue.worlds.spec import Calendar, Customers, Journeys, Spread

START = datetime(2020, 1, 1, tzinfo=UTC)
CUTOFF = datetime(2020, 12, 31, tzinfo=UTC)


def store_of(folder: Path, rows: list[tuple[int, float]]) -> Store:
    """Orders as (customer, days since the start)."""
    time = (pl.lit(START, UTC_TIME) + pl.duration(seconds=(pl.col("day") * 86_400).cast(pl.Int64))).cast(
        UTC_TIME
    )
    events = (
        pl.DataFrame(rows, schema={"customer": pl.Int64, "day": pl.Float64}, orient="row")
        .select(
            pl.lit("base").alias(BASE),
            pl.format("c{}", "customer").alias(CUSTOMER_ID),
            pl.col("customer").alias(CUSTOMER),
            time.alias(EVENT_TIME),
            time.alias(KNOWN_TIME),
            pl.lit(ORDER).alias(EVENT_TYPE),
            pl.lit(10.0).alias(AMOUNT),
        )
        .sort(CUSTOMER, EVENT_TIME)
    )
    return stored(folder, events, START, CUTOFF)


def stored(folder: Path, events: pl.DataFrame, start: datetime, end: datetime) -> Store:
    """Events by customer and time as a store of one shard."""
    count = len(events)
    manifest = Manifest(
        fingerprint="f", shards=1, rows_in=count, rows_kept=count, rows_quarantined=0, rows_duplicate=0,
        events=count, customers=events[CUSTOMER].n_unique(), columns=list(events.columns),
        event_types=dict(events.group_by(EVENT_TYPE).len().sort(EVENT_TYPE).iter_rows()),
        first_event=start.isoformat(), last_event=end.isoformat(), observation_end=end.isoformat(),
        observation_end_given=False, time_zone="UTC", local_zone="UTC", has_clock=True, currency="", notes=[],
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder, manifest)
    events.write_parquet(store.shard_path(0))
    return store


def base(kind: str, customers: int, seed: int, extra_days: float = 0) -> list[tuple[int, float]]:
    """Order days over a year; BG customers can quit at any repeat order, others never do before their Pareto death."""
    rng = np.random.default_rng(seed)
    rows = []
    for customer in range(customers):
        now, rate = float(rng.uniform(0, 90)), rng.gamma(1.0, 1 / 25)
        quits = rng.beta(0.6, 1.0) if kind == "bg" else 0.0
        death = np.inf if kind == "bg" else now + rng.exponential(1) / rng.gamma(0.7, 1 / 60)
        while now < min(365 + extra_days, death):
            rows.append((customer, now))
            now += rng.exponential(1) / rate
            if len(rows) > 1 and rows[-2][0] == customer and rng.random() < quits:
                break
    return rows


@pytest.mark.parametrize(("kind", "fitting"), [("bg", Rung.bg_nbd), ("pareto", Rung.pareto_nbd)])
def test_the_rung_that_made_the_base_wins(tmp_path: Path, kind: str, fitting: Rung) -> None:
    rung, scores = choose_rung(store_of(tmp_path, base(kind, 2_500, seed=5)), CUTOFF, 120, Options())
    assert rung is fitting
    assert scores.schema == SCORES
    assert scores.filter(pl.col("chosen"))[MODEL].to_list() == [rung.value]
    assert scores["log_score"].is_finite().all()


@pytest.mark.parametrize("horizon_days", [60, 90])
def test_learned_rungs_win_where_there_are_seasons_and_signs_of_leaving(
    tmp_path: Path, horizon_days: int
) -> None:
    """Four times as many orders in December as in June, seen twice; tickets, visits and e-mails tell of losses."""
    weeks = tuple(1 + 0.6 * cos(2 * pi * (week - 48) / 52) for week in range(52))
    spec = Spec(
        days=800,
        customers=Customers(Spread(1 / 20, 0.7), Spread(1 / 300, 0.5)),
        calendar=Calendar(week_of_year=weeks),
        journeys=Journeys(lead_days=90, strength=20),
        cutoffs=(),
    )
    events = simulate(spec, 300, seed=1).events.sort(CUSTOMER, EVENT_TIME)
    end = spec.start + timedelta(days=spec.days)
    rung, scores = choose_rung(stored(tmp_path, events, spec.start, end), end, horizon_days, Options())
    assert rung in (Rung.zero_shot, Rung.xgboost, Rung.blend)
    won = scores.filter(pl.col("chosen"))
    assert won["lead"].item() > 2 * won["lead_error"].item()
    assert won["gini_lead"].item() > 2 * won["gini_lead_error"].item()


def test_nothing_after_the_cutoff_is_read(tmp_path: Path) -> None:
    rows = base("pareto", 400, seed=6)
    later = [(customer, 365.0 + extra) for customer in range(300) for extra in (0.5, 20.0, 60.0)]
    _, before = choose_rung(store_of(tmp_path / "a", rows), CUTOFF - timedelta(days=1), 90, Options())
    _, after = choose_rung(store_of(tmp_path / "b", rows + later), CUTOFF - timedelta(days=1), 90, Options())
    assert not before.is_empty()
    assert after.equals(before)


@pytest.mark.parametrize(
    "rows", [[(0, 3.0)], [(c, 360.0 + c % 4) for c in range(200)], [(c, 1.0) for c in range(40)], []]
)
@pytest.mark.parametrize("unlikeness", [0.5, 1.5, None])
def test_a_short_or_small_history_is_left_to_the_base_model_if_that_knows_its_like(
    tmp_path: Path,
    rows: list[tuple[int, float]],
    unlikeness: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Training, "unlikeness", unlikeness)
    rung, scores = choose_rung(store_of(tmp_path, rows), CUTOFF, 90, Options())
    assert rung is (Rung.zero_shot if unlikeness == 0.5 else Rung.pareto_nbd)
    assert scores.is_empty()


def test_a_base_where_nobody_came_back_is_decided_too(tmp_path: Path) -> None:
    rung, scores = choose_rung(
        store_of(tmp_path, [(c, float(c % 300)) for c in range(300)]), CUTOFF, 90, Options()
    )
    assert rung in (Rung.pareto_nbd, Rung.bg_nbd, Rung.mbg_nbd)
    assert scores["log_score"].is_finite().all()
