"""Key figures and life value, by hand and against slow loops."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from retinue.config import resolve
from retinue.decisions.acquisition import acquisition, top_buys
from retinue.decisions.kpis import Snapshot, kpi_table, progress
from retinue.events.store import Store
from retinue.options import Options, ValueOptions
from retinue.pipeline import advance
from retinue.runs import Run, Stage

DAY = timedelta(days=1)
START = datetime(2022, 1, 3, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A shop of 240 customers over 500 days with channels, categories, refunds and surveys, up to its decisions."""
    folder = tmp_path_factory.mktemp("kpis")
    rng = np.random.default_rng(3)
    rows: list[tuple[object, ...]] = []
    for i in range(240):
        first = float(rng.uniform(0, 400))
        days = first + np.concatenate([[0], np.cumsum(rng.exponential(25 if i % 2 else 60, 12))])
        channel = "store" if i % 3 == 0 else "web"
        for n, day in enumerate(days[days < 500]):
            at = START + day * DAY
            rows.append(
                (
                    f"c{i:03d}",
                    at,
                    "order",
                    float(rng.lognormal(3, 0.4)),
                    channel,
                    f"cat{(i + n) % 4}",
                    f"p{(i + n) % 9}",
                    None,
                )
            )
            if rng.random() < 0.1:
                rows.append((f"c{i:03d}", at + 2 * DAY, "refund", -5.0, channel, None, None, None))
        if i % 4 == 0:
            rows.append(
                (f"c{i:03d}", START + (first + 1) * DAY, "survey", None, None, None, None, float(1 + i % 5))
            )
    columns = [
        "customer_id",
        "event_time",
        "event_type",
        "amount",
        "channel",
        "category",
        "product",
        "rating",
    ]
    events = pl.DataFrame(rows, schema=columns, orient="row").filter(pl.col("event_time") < START + 500 * DAY)
    events.write_parquet(folder / "events.parquet")
    options = resolve(
        [
            f"data.path={folder}/events.parquet", "data.time_zone=UTC", "cutoff=2023-02-17", "horizon_days=60",
            f"output={folder}/out", "segments.bootstraps=2", "segments.max_segments=3", "forecaster=pareto_nbd",
            "value.margin_rate=0.4", "value.acquisition_cost.all=10", "value.acquisition_cost.store=30",
        ]
    )  # fmt: skip
    return advance(options, Stage.decide)


def value(run: Run, kpi: str, dimension: str = "all", group: str = "all") -> float:
    table = run.read("kpis").filter(
        (pl.col("kpi") == kpi) & (pl.col("dimension") == dimension) & (pl.col("group") == group)
    )
    assert table.height == 1, (kpi, dimension, group)
    return float(table["value"][0])


def orders(run: Run) -> pl.DataFrame:
    events = run.store.scan().collect()
    return events.filter(
        pl.col("event_time") <= run.cutoffs[-1], pl.col("event_type") == "order"
    ).with_columns(pl.col("event_time").dt.date().alias("day"))


def test_rates_against_plain_counting(run: Run) -> None:
    days = (
        orders(run)
        .group_by("customer_id")
        .agg(pl.col("day").n_unique(), pl.col("day").min().alias("first"), pl.len().alias("n"))
    )
    assert value(run, "repeat_purchase_rate") == pytest.approx((days["day"] > 1).mean())
    assert value(run, "orders_per_customer") == pytest.approx(days["n"].mean())
    quarter = days.filter((pl.col("first").dt.year() == 2022) & (pl.col("first").dt.quarter() == 2))
    assert value(run, "repeat_purchase_rate", "cohort", "2022 Q2") == pytest.approx(
        (quarter["day"] > 1).mean()
    )


def test_churn_is_who_was_active_and_did_not_come_again(run: Run) -> None:
    cutoff = run.cutoffs[-1]
    bought = orders(run)
    middle, start = cutoff - 90 * DAY, cutoff - 180 * DAY
    was = set(bought.filter((pl.col("event_time") > start) & (pl.col("event_time") <= middle))["customer_id"])
    came = set(bought.filter(pl.col("event_time") > middle)["customer_id"])
    assert value(run, "churn_rate") == pytest.approx(1 - len(was & came) / len(was))
    assert value(run, "retention_rate") == pytest.approx(len(was & came) / len(was))


def test_satisfaction_by_hand(run: Run) -> None:
    ratings = run.store.scan().filter(pl.col("event_type") == "survey").collect()["rating"]
    satisfied = sum(r >= 4 for r in ratings) / len(ratings)
    nps = 100 * (sum(r == 5 for r in ratings) - sum(r <= 3 for r in ratings)) / len(ratings)
    per_segment = run.read("kpis").filter((pl.col("kpi") == "csat") & (pl.col("dimension") == "segment"))
    assert value(run, "csat") == pytest.approx(satisfied)
    assert value(run, "nps") == pytest.approx(nps)
    assert per_segment["customers"].sum() == value_count(run)


def value_count(run: Run) -> int:
    return int(
        run.read("kpis").filter((pl.col("kpi") == "csat") & (pl.col("dimension") == "all"))["customers"][0]
    )


def test_what_was_called_at_risk_is_held_against_what_came(run: Run) -> None:
    cutoff = run.cutoffs[-1]
    told = run.read("forecasts").filter(pl.col("horizon_days") == 60)
    later = (
        run.store.scan()
        .collect()
        .filter(
            (pl.col("event_time") > cutoff)
            & (pl.col("event_time") <= cutoff + 60 * DAY)
            & (pl.col("event_type") == "order")
        )
    )
    left = ~told["customer_id"].is_in(later["customer_id"].implode())
    called = told["p_churn"] >= 0.7
    assert value(run, "trigger_precision") == pytest.approx(int((called & left).sum()) / int(called.sum()))
    assert value(run, "trigger_recall") == pytest.approx(int((called & left).sum()) / int(left.sum()))


def test_before_is_the_same_figure_then(run: Run) -> None:
    """The figure before is that of a table made at the earlier cutoff."""
    table = run.read("kpis").filter((pl.col("kpi") == "orders_per_customer") & (pl.col("dimension") == "all"))
    then = orders(run).filter(pl.col("event_time") <= run.cutoffs[-1] - 90 * DAY)
    assert table["before"][0] == pytest.approx(then.height / then["customer_id"].n_unique())


def test_targets_tell_how_far_it_has_come(run: Run) -> None:
    table = run.read("kpis")
    row = table.filter((pl.col("kpi") == "orders_per_customer") & (pl.col("dimension") == "all")).to_dicts()[
        0
    ]
    change = row["value"] / row["before"] - 1
    told = progress(table, {"orders_per_customer": 0.5, "no_such_figure": 0.1})
    assert told[0].change == pytest.approx(change)
    assert told[0].progress == pytest.approx(change / 0.5)
    assert told[1].change is None


def test_life_value_is_margin_so_far_and_to_come(run: Run) -> None:
    table = run.read("acquisition")
    events = run.store.scan().collect().filter(pl.col("event_time") <= run.cutoffs[-1])
    clv = run.read("forecasts").select("customer_id", "clv")
    so_far = (
        events.group_by("customer_id")
        .agg((pl.col("amount").fill_null(0.0).sum() * 0.4).alias("m"))
        .join(clv, on="customer_id")
    )
    whole = table.filter(pl.col("dimension") == "all").to_dicts()[0]
    assert whole["life_value"] == pytest.approx((so_far["m"] + so_far["clv"]).mean())
    assert whole["most_cac"] == pytest.approx(whole["life_value"] / 3)
    assert whole["ltv_to_cac"] == pytest.approx(whole["life_value"] / 10)
    assert whole["to_cohort"] == pytest.approx(0, abs=1e-9)
    by_channel = {
        row["first_buy"]: row for row in table.filter(pl.col("dimension") == "first channel").to_dicts()
    }
    assert by_channel["store"]["ltv_to_cac"] == pytest.approx(by_channel["store"]["life_value"] / 30)
    assert by_channel["store"]["payback_days"] > by_channel["web"]["payback_days"] >= 0


def test_a_cost_is_paid_back_when_customers_seen_so_long_have_brought_it(run: Run) -> None:
    """All have paid 10 for a margin of .4: an order of 20 brings 8, so it takes more than the first one."""
    days = run.read("acquisition").filter(pl.col("dimension") == "all")["payback_days"][0]
    events = (
        run.store.scan()
        .collect()
        .filter((pl.col("event_time") <= run.cutoffs[-1]) & pl.col("amount").is_not_null())
    )
    first = (
        events.filter(pl.col("event_type") == "order")
        .group_by("customer_id")
        .agg(pl.col("event_time").min().alias("first"))
    )
    rows = events.join(first, on="customer_id")
    last = events["event_time"].max()

    def mean(day: float) -> float:
        seen = first.filter((pl.lit(last) - pl.col("first")) >= day * DAY)
        mine = rows.join(seen.select("customer_id"), on="customer_id", how="semi").filter(
            (pl.col("event_time") - pl.col("first")) <= day * DAY
        )
        return 0.4 * float(mine["amount"].sum()) / seen.height

    assert mean(0) < 10
    grid = [0, 1, 3, 7, 14, 21, 30, 45, 60, 90, 120]
    low, high = max(d for d in grid if d <= days), min(d for d in grid if d >= days)
    assert mean(low) <= 10 <= mean(high)


def test_what_a_segment_buys(run: Run) -> None:
    table = top_buys(run.store, run.cutoffs[-1], run.read("segments"))
    one = table.filter(pl.col("dimension") == "category").to_dicts()[0]
    mine = run.read("segments").filter(pl.col("segment") == one["segment"])["customer_id"]
    bought = orders(run)
    inside = bought.filter(pl.col("customer_id").is_in(mine.implode()))
    assert one["orders"] == (inside["category"] == one["group"]).sum()
    assert one["lift"] == pytest.approx(one["share"] / (bought["category"] == one["group"]).mean())


def test_bases_that_know_little_have_fewer_figures(run: Run) -> None:
    features = run.read("features").select("customer_id", "cutoff", "customer", "frequency", "T_days")
    now = Snapshot(run.cutoffs[-1], features, run.read("segments"), run.read("forecasts").head(0))
    told = kpi_table(run.store, now, None, Options())
    assert "repeat_purchase_rate" in told["kpi"].to_list()
    assert "clv_per_customer" not in told["kpi"].to_list()
    assert told["before"].null_count() == told.height


def test_nobody_has_no_life_value(run: Run) -> None:
    store: Store = run.store
    none = acquisition(
        store, run.cutoffs[-1], run.read("features"), run.read("forecasts").head(0), run.read("segments"), ValueOptions()
    )  # fmt: skip
    assert none.is_empty()


def test_own_costs_tell_the_margin_so_far(run: Run) -> None:
    """Twice the margin, as told by the customers' own costs, is twice the past in the life value."""
    features = run.read("features")

    def life(margin: float | None) -> float:
        own = features.with_columns(pl.lit(margin, pl.Float64).alias("margin_rate"))
        told = acquisition(
            run.store, run.cutoffs[-1], own, run.read("forecasts").with_columns(clv=0.0), run.read("segments"),
            ValueOptions(margin_rate=0.2),
        )  # fmt: skip
        return float(told.filter(pl.col("dimension") == "all")["life_value"][0])

    assert life(0.4) == pytest.approx(2 * life(None))


def test_drift_is_the_share_of_features_spread_otherwise(run: Run) -> None:
    """Against itself nothing has drifted; with one feature shifted for everyone one of them has."""
    features = run.read("features")
    now = Snapshot(run.cutoffs[-1], features, run.read("segments"), run.read("forecasts").head(0))

    def drifted(before: pl.DataFrame) -> float:
        told = kpi_table(run.store, now, Snapshot(now.cutoff, before, now.segments, now.forecasts), Options())
        return float(told.filter(pl.col("kpi") == "drifted_features_share")["value"][0])

    assert drifted(features) == 0.0
    numbers = len(
        [name for name, kind in features.schema.items() if kind.is_numeric() and name != "customer"]
    )
    assert drifted(features.with_columns(pl.col("days_since_last") + 1_000)) == pytest.approx(1 / numbers)
