"""Where the grid's cutoffs lie, and that its windows close in time."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

from retinue.accel.engine import choose_engine
from retinue.evaluation.folds import past_of, scrambled_after
from retinue.forecasting.grid import Grid, grid_at, layout
from retinue.forecasting.trees import share_of
from retinue.options import Engine
from retinue.schema import CUTOFF, HORIZON_DAYS, REALISED_ORDERS
from tests.forecasting.shops import START, shop

CPU = choose_engine(Engine.cpu)


def test_nine_months_of_history_and_nine_asked() -> None:
    plan = layout(273, 273)
    assert plan is not None
    assert plan.inner_days == 136  # as far beyond its 137 days of history as 273 are beyond 273
    assert plan.offsets == tuple(range(23, 231, 23))
    assert plan.horizons == (23, 46, 92, 136, 184)
    assert plan.origins == (138, 161)
    assert plan.is_evidence
    assert plan.disjoint_windows < 2


def test_a_short_horizon_still_sees_the_season_of_a_year_before() -> None:
    for span, horizon in ((550, 14), (550, 30), (550, 60), (800, 90)):
        plan = layout(span, horizon)
        assert plan is not None
        assert plan.sees_seasons
    plan = layout(400, 30)
    assert plan is not None
    assert not plan.sees_seasons


def test_a_horizon_far_beyond_the_history_cannot_rank_rungs() -> None:
    plan = layout(60, 365)
    assert plan is not None
    assert plan.inner_days == 30
    assert not plan.is_evidence


def test_a_long_history_has_disjoint_windows_and_recent_cutoffs() -> None:
    plan = layout(3_650, 90)
    assert plan is not None
    assert plan.inner_days == 90
    assert len(plan.offsets) == 26
    assert plan.sees_seasons
    assert plan.disjoint_windows >= 3
    assert all(b - a >= 90 for a, b in zip(plan.origins, plan.origins[1:], strict=False))


def test_every_origin_has_its_window_observed_and_a_past() -> None:
    for span in range(1, 800, 7):
        for horizon in (7, 30, 91, 365, 3_000):
            plan = layout(span, horizon)
            if plan is None:
                assert min(span // 3, horizon) < 7
                continue
            assert all(plan.inner_days <= origin <= 0.61 * span for origin in plan.origins)
            assert all(days <= plan.offsets[-1] for days in plan.horizons)
            assert max(plan.offsets) <= span * 7 / 8


def grid(store: object, days: int = 250) -> Grid:
    found = grid_at(store, START + timedelta(days=days), [60], CPU)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_windows_close_before_the_cutoff_that_learns_from_them(tmp_path: Path) -> None:
    found = grid(shop(tmp_path))
    assert found.windows(0)
    for closed_by in found.layout.origins:
        assert all(offset - days >= closed_by for offset, days in found.windows(closed_by))
    end = pl.col(CUTOFF) + pl.duration(days=pl.col(HORIZON_DAYS))
    assert found.truth.select((end <= found.cutoff).all()).item()
    for offset, days in found.windows():
        assert found.outcomes(offset, days)[REALISED_ORDERS].null_count() == 0


def test_the_future_is_not_read(tmp_path: Path) -> None:
    past = past_of(shop(tmp_path), START + timedelta(days=250))
    plain, scrambled = grid(past), grid(scrambled_after(past))
    assert_frame_equal(plain.truth, scrambled.truth, rel_tol=1e-12)
    for offset, features in plain.features.items():
        assert_frame_equal(features, scrambled.features[offset], rel_tol=1e-12)


def test_a_sample_of_customers_keeps_their_rows_whole(tmp_path: Path) -> None:
    store = shop(tmp_path)
    some = grid_at(store, START + timedelta(days=250), [60], CPU, most_customers=80)
    assert some is not None
    everyone = grid(store)
    offset = min(some.features)
    assert some.features[offset].height <= 80 < everyone.features[offset].height
    mine = everyone.features[offset].filter(
        pl.col("customer").is_in(some.features[offset]["customer"].implode())
    )
    assert mine["orders_ever"].equals(some.features[offset]["orders_ever"])


def test_shares_are_uniform_and_independent_between_salts() -> None:
    codes = pl.Series("customer", np.arange(40_000))
    one, other = share_of(codes, 0), share_of(codes, 1)
    assert np.abs(np.histogram(one, 10, (0, 1))[0] / 4_000 - 1).max() < 0.08
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.02
