"""What a base tells of itself: against slow loops, in any parts, and never of what came later."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields
from datetime import timedelta
from functools import reduce
from operator import add

import numpy as np
import polars as pl
import pytest

from retinue.events.timeline import history
from retinue.sequences.base_sums import SUMMARY, Sums, Worth, summary_of
from retinue.sequences.behaviour import NAMES, Behaviour, behaviour_at
from retinue.sequences.tokens import Tokens, tokens_of
from retinue.sequences.units import Units, counts_of, units_of
from retinue.worlds import simulate
from retinue.worlds.kinds import Kind, spec_of
from retinue.worlds.spec import Spec

SPEC = spec_of(Kind.rich, 400)
CUTOFF = SPEC.start + timedelta(days=300, microseconds=-1)


def events_of(spec: Spec = SPEC, customers: int = 120) -> pl.DataFrame:
    return simulate(spec, customers, 3).events


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    return events_of()


def read(events: pl.DataFrame) -> tuple[Tokens, Units, Behaviour]:
    tokens = tokens_of(events.lazy(), "UTC")
    units = units_of([tokens], CUTOFF)
    return tokens, units, behaviour_at(tokens, CUTOFF, units)


def test_numbers_agree_with_a_slow_loop(events: pl.DataFrame) -> None:
    _, units, found = read(events)
    known = events.filter(pl.col("known_time") <= CUTOFF)
    days: dict[int, set[int]] = defaultdict(set)
    paid: dict[int, list[tuple[int, float]]] = defaultdict(list)
    back: dict[int, float] = defaultdict(float)
    contacts: dict[int, int] = defaultdict(int)
    last = (CUTOFF - SPEC.start).days
    for row in known.iter_rows(named=True):
        who, day = row["customer"], (row["event_time"] - SPEC.start).days
        if row["event_type"] == "order":
            days[who].add(day)
            paid[who].append((day, row["amount"]))
        elif row["event_type"] == "refund":
            back[who] -= row["amount"]
        elif last - day < 30:
            contacts[who] += 1
    assert found.customer.tolist() == sorted(days)
    median = float(np.median([amount for rows in paid.values() for _, amount in rows]))
    assert units.order_value == pytest.approx(median)
    column = {name: found.numbers[:, i] for i, name in enumerate(NAMES)}
    for i, who in enumerate(found.customer.tolist()):
        mine = sorted(days[who])
        ago = [last - day for day in mine]
        assert (found.frequency[i], found.recency[i], found.age[i]) == (
            len(mine) - 1,
            mine[-1] - mine[0],
            ago[0],
        )
        assert column["log_silence"][i] == pytest.approx(np.log1p(ago[-1]), abs=1e-6)
        for window in (30, 90, 180, 365):
            expected = np.log1p(sum(each < window for each in ago))
            assert column[f"log_orders_{window}"][i] == pytest.approx(expected, abs=1e-6)
        values = np.log([amount / median for _, amount in paid[who]])
        assert column["log_value"][i] == pytest.approx(values.mean(), abs=1e-5)
        assert found.gross[i] == pytest.approx(np.exp(values).sum(), rel=1e-6)
        assert column["refund_share"][i] == pytest.approx(
            min(back[who] / median / found.gross[i], 2), abs=1e-5
        )
        assert column["log_contacts_30"][i] == pytest.approx(np.log1p(contacts[who]), abs=1e-6)
        gaps = np.log(np.diff(mine))
        if len(gaps) > 1:
            assert column["gap_deviation"][i] == pytest.approx(np.std(gaps, ddof=1), abs=1e-5)
        else:
            assert np.isnan(column["gap_deviation"][i])
        assert np.isnan(column["last_gap_in_gaps"][i]) == (len(gaps) == 0)


def test_rates_are_repeat_days_per_day_at_risk(events: pl.DataFrame) -> None:
    _, units, found = read(events)
    age, sums = found.age, found.sums
    inside = np.expm1(found.numbers[:, NAMES.index("log_orders_90")].astype(np.float64))
    new = age < 90
    place = 1
    assert units.windows[place] == 90
    assert sums.exposure[place] == pytest.approx(np.minimum(age, 90).sum())
    assert sums.orders[place] == pytest.approx((inside - new).sum(), abs=1e-4)
    assert (sums.older[place], sums.came[place]) == ((~new).sum(), new.sum())
    assert sums.active[place] == (~new & (inside > 0.5)).sum()
    summary = dict(zip(SUMMARY, summary_of(sums, units).tolist(), strict=True))
    assert summary["rate_90"] == pytest.approx(
        np.log((sums.orders[1] + 0.5) / (sums.exposure[1] + 15)), abs=1e-5
    )
    assert np.isnan(summary["rate_365"])  # the history is shorter
    assert sums.grid.sum() == len(age)


def test_sums_of_parts_are_those_of_the_whole(events: pl.DataFrame) -> None:
    tokens, units, whole = read(events)
    parts = [tokens.take(np.flatnonzero(tokens.customer % 3 == i)) for i in range(3)]
    added: Sums | None = None
    for part in parts:
        found = behaviour_at(part, CUTOFF, units).sums
        added = found if added is None else added + found
    assert added is not None
    for field in fields(Sums):
        assert getattr(added, field.name) == pytest.approx(getattr(whole.sums, field.name), rel=1e-9), (
            field.name
        )
    again = units_of(parts, CUTOFF)
    assert (again.first_day, again.cutoff_day) == (units.first_day, units.cutoff_day)
    assert again.order_value == pytest.approx(units.order_value)
    assert again.order_counts.tolist() == units.order_counts.tolist()


def test_the_sample_behind_medians_follows_from_the_customers_alone(
    events: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few values are held, and they are the same ones however the base is cut up and in whatever order it is read."""
    tokens, _, _ = read(events)
    monkeypatch.setattr("retinue.sequences.units.MOST_SAMPLED", 150)

    def held(count: int, order: int) -> list[tuple[int, list[float]]]:
        parts = [tokens.take(np.flatnonzero(tokens.customer % count == i)) for i in range(count)][::order]
        counts = reduce(add, (counts_of(part, CUTOFF) for part in parts))
        return [(one.zeros, np.sort(one.value).tolist()) for one in (counts.values, counts.gaps)]

    whole = held(1, 1)
    assert all(0 < len(values) <= 150 and zeros > 0 for zeros, values in whole)
    assert held(3, 1) == held(3, -1) == held(7, 1) == whole


def test_nothing_after_the_cutoff_is_seen_and_the_currency_does_not_matter(events: pl.DataFrame) -> None:
    _, units, found = read(events)
    _, same_units, same = read(history(events.lazy(), CUTOFF).collect())
    np.testing.assert_array_equal(same.numbers, found.numbers)
    np.testing.assert_array_equal(summary_of(same.sums, same_units), summary_of(found.sums, units))
    _, other_units, other = read(events.with_columns(pl.col("amount") * 100))
    np.testing.assert_allclose(other.numbers, found.numbers, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        summary_of(other.sums, other_units), summary_of(found.sums, units), rtol=1e-5, atol=1e-5
    )


def test_a_base_of_one_customer_has_numbers() -> None:
    one = events_of(spec_of(Kind.pareto_nbd, 400), 3)
    one = one.filter(pl.col("customer") == one["customer"][0]).head(1)
    tokens = tokens_of(one.lazy(), "UTC")
    cutoff = one["event_time"][0] + timedelta(days=5)
    units = units_of([tokens], cutoff)
    found = behaviour_at(tokens, cutoff, units)
    assert (len(found.customer), found.frequency[0]) == (1, 0)
    assert not np.isinf(found.numbers).any()
    assert not np.isinf(summary_of(found.sums, units)).any()


def test_the_base_s_mean_weighs_more_where_customers_are_alike() -> None:
    lot = np.random.default_rng(0)
    weights = []
    for between in (0.05, 0.8):
        own = np.exp(lot.normal(0, between, 2_000))[:, None]
        each = own * np.exp(lot.normal(0, 0.4, (2_000, 5)))
        mean = each.mean(1)
        values = np.array(
            [10_000, 2_000, ((each - mean[:, None]) ** 2).sum(), mean.sum(), (mean**2).sum(), 2_000 / 5]
        )
        zeros = {field.name: np.zeros(1) for field in fields(Sums)}
        worth = Worth.of(Sums(**{**zeros, "values": values}))
        weights.append(worth.weight)
        assert worth.own_mean(np.array([5.0]), np.array([5 * worth.mean]))[0] == pytest.approx(worth.mean)
    assert weights[0] > 10 * weights[1]
