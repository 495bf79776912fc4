"""Readouts see the past up to their cutoff and are judged by the future after it."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import torch

from retinue.evaluation.realised import realised
from retinue.events.prepare import prepare
from retinue.events.store import Store
from retinue.events.timeline import day_ends, history, instant, up_to
from retinue.options import DataOptions, Source
from retinue.schema import AMOUNT, CUSTOMER_ID, EVENT_TIME, REALISED_ORDERS, REALISED_SPEND, InputError
from retinue.sequences.readouts import Readouts, local_day
from retinue.sequences.resident import Resident, Sampler, resident
from retinue.sequences.season import Season
from retinue.sequences.tokens import Tokens
from retinue.sequences.vocabulary import Vocabulary
from tests.forecasting.shops import START, shop, stored
from tests.sequences.made import FEATURES, at, learnt, readouts_at, tokens_of

CUTOFFS = [at(60), at(100.4), at(160)]
END = at(199)


class Shop(NamedTuple):
    store: Store
    tokens: Tokens
    readouts: Readouts
    vocabulary: Vocabulary
    season: Season
    resident: Resident


def opened(store: Store, folder: Path, cutoffs: list[datetime], end: datetime) -> Shop:
    tokens = tokens_of(store, folder)
    readouts = readouts_at(store, cutoffs, end)
    vocabulary, season = learnt(tokens, end)
    return Shop(store, tokens, readouts, vocabulary, season, resident(tokens, readouts, vocabulary, season))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("readouts")
    return opened(shop(folder / "events", customers=120, days=200), folder / "tokens", CUTOFFS, END)


def everyone(shop: Shop) -> np.ndarray:
    return np.arange(len(shop.resident.lengths))


def assert_as_realised(shop: Shop, cutoffs: list[datetime], horizons: list[int]) -> None:
    """Orders and spend of all readouts at fixed horizons, against `realised` of what was known at the end."""
    known = history(shop.store.scan(), shop.readouts.end)
    ids = known.select("customer", CUSTOMER_ID).unique().collect()
    for horizon in horizons:
        targets = shop.resident.batch(everyone(shop), days=horizon).targets
        assert targets is not None
        unit = shop.vocabulary.order_value
        found = pl.DataFrame(
            {
                "customer": shop.readouts.customer,
                "cutoff": shop.readouts.cutoff,
                "orders": targets.orders[:, 0].double().numpy(),
                "spend": unit * (targets.gross - targets.refunds)[:, 0].double().numpy(),
            }
        ).join(ids, on="customer")
        for cutoff in cutoffs:
            truth = realised(known, cutoff, horizon, shop.store.local_zone).collect()
            mine = found.filter(pl.col("cutoff") == int(cutoff.timestamp() * 1e6)).sort(CUSTOMER_ID)
            assert mine[CUSTOMER_ID].to_list() == truth[CUSTOMER_ID].to_list()
            assert truth[REALISED_ORDERS].sum() > 0
            np.testing.assert_array_equal(mine["orders"], truth[REALISED_ORDERS])
            np.testing.assert_allclose(mine["spend"], truth[REALISED_SPEND], rtol=1e-5, atol=1e-5 * unit)


def test_targets_are_what_was_realised(small: Shop) -> None:
    assert_as_realised(small, CUTOFFS, [1, 7, 39])


def test_days_of_targets_are_local(tmp_path: Path) -> None:
    store = shop(tmp_path / "events", customers=60, days=200)
    far = Store(store.folder, replace(store.manifest, local_zone="Pacific/Auckland"))
    far.write_manifest()
    assert_as_realised(opened(far, tmp_path / "tokens", CUTOFFS, END), CUTOFFS, [30])


def test_a_worked_customer(tmp_path: Path) -> None:
    rows = [
        (1, 1.5, 1.5, "order", 10.0),
        (1, 5.5, 5.5, "order", 10.0),
        (1, 5.6, 9.5, "refund", -4.0),  # known on day 9
        (1, 11.2, 11.2, "order", 20.0),
        (1, 11.9, 11.9, "order", 20.0),  # the same day
        (1, 14.0, 14.0, "refund", -20.0),
        (1, 19.5, 21.0, "order", 99.0),  # known after the end
        (2, 3.0, 3.0, "order", 10.0),
    ]
    frame = pl.DataFrame(rows, schema=["customer", "event", "known", "event_type", "amount"], orient="row")
    store = stored(frame, tmp_path / "events", 20)
    readouts = readouts_at(store, [at(8), at(10)], at(20))
    tokens = tokens_of(store, tmp_path / "tokens")
    vocabulary, _ = learnt(tokens, at(20))
    made = resident(tokens, readouts, vocabulary, Season.even())
    batch = made.batch(np.arange(2))
    assert batch.cu_seqlens.tolist() == [0, 3, 4]  # up to the last cutoff
    assert batch.at.tolist() == [1, 2, 3, 3]
    silence = batch.silence[0].double().numpy()
    expected = [
        np.log1p(2.5),
        np.log(2.5 / vocabulary.gap_days + 0.02),
        np.log1p(2.5),
        np.log(2.5 / 4 + 0.02),
    ]
    np.testing.assert_allclose(silence, expected, rtol=1e-5)
    np.testing.assert_allclose(batch.silence[1, [0, 2]].numpy(), np.log1p([0.5, 4.5]), rtol=1e-6)
    assert torch.isnan(batch.silence[2:, 3]).all()  # one order has no gap
    targets = batch.targets
    assert targets is not None
    assert vocabulary.order_value == 10.0
    assert targets.window.tolist() == [12.0, 10.0, 12.0, 10.0]
    assert targets.before.tolist() == [3.0, 1.0, 12.0, 10.0]
    assert targets.until.tolist() == [4.0, 2.0, np.inf, np.inf]
    assert targets.orders[:, -1].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert targets.gross[:, -1].tolist() == [4.0, 4.0, 0.0, 0.0]
    assert targets.refunds[:, -1].tolist() == [2.0, 2.0, 0.0, 0.0]
    assert targets.next_kind.tolist() == [1, 2, 1, -1]
    np.testing.assert_allclose(targets.next_gap[:3], np.log1p([4.0, 4.0, 1.7]), rtol=1e-5)
    np.testing.assert_allclose(targets.next_amount[:3], [np.log(2), -np.log(1.4), np.log(3)], rtol=1e-6)
    assert torch.isnan(targets.next_gap[3])


def test_an_order_on_the_last_broken_day_is_beyond_the_window(tmp_path: Path) -> None:
    rows = [(1, 1.0, 1.0, "order", 10.0), (1, 19.2, 19.2, "order", 10.0), (2, 2.0, 2.0, "order", 10.0)]
    rows += [(2, 18.9, 18.9, "order", 10.0)]
    frame = pl.DataFrame(rows, schema=["customer", "event", "known", "event_type", "amount"], orient="row")
    store = stored(frame, tmp_path / "events", 20)
    tokens = tokens_of(store, tmp_path / "tokens")
    made = resident(
        tokens, readouts_at(store, [at(10)], at(19.5)), learnt(tokens, at(19.5))[0], Season.even()
    )
    targets = made.batch(np.arange(2)).targets
    assert targets is not None
    assert targets.window.tolist() == [9.0, 9.0]
    assert targets.before.tolist() == [9.0, 8.0]
    assert targets.until.tolist() == [np.inf, 9.0]
    assert targets.orders[:, -1].tolist() == [0.0, 1.0]


def test_who_has_not_ordered_yet_has_a_future_of_their_own(tmp_path: Path) -> None:
    rows = [(1, 1.0, 1.0, "order", 10.0), (1, 13.2, 13.2, "order", 30.0), (2, 2.0, 2.0, "visit", None)]
    rows += [(2, 13.5, 13.5, "order", 10.0), (2, 13.6, 13.6, "refund", -5.0), (3, 3.0, 3.0, "visit", None)]
    frame = pl.DataFrame(rows, schema=["customer", "event", "known", "event_type", "amount"], orient="row")
    tokens = tokens_of(stored(frame, tmp_path / "events", 20), tmp_path / "tokens")
    vocabulary = learnt(tokens, at(20))[0]
    when = pl.lit(at(10)).dt.cast_time_unit("us")
    readouts = Readouts.of([pl.DataFrame({"customer": [1, 2, 3]}).with_columns(cutoff=when)], [], at(20))
    batch = resident(tokens, readouts, vocabulary, Season.even()).batch(np.arange(3))
    assert torch.isnan(batch.silence[1:, 2]).all()
    targets = batch.targets
    assert targets is not None
    assert targets.orders[:, 0].tolist() == [1, 1, 0]
    assert targets.gross[:, 0].tolist() == [3, 1, 0]
    assert targets.refunds[:, 0].tolist() == [0, 0.5, 0]
    assert targets.until.tolist() == [4, 4, np.inf]


def test_customers_do_not_run_into_each_other_and_a_cut_day_still_counts(tmp_path: Path) -> None:
    rows = [
        (1, 1.0, 1.0, "order", 10.0),
        (1, 15.1, 15.1, "order", 10.0),  # the day on which customer 2 begins anew
        (2, 2.0, 2.0, "order", 10.0),
        (2, 15.7, 15.7, "order", 10.0),
        (2, 16.2, 16.2, "refund", -5.0),
        (3, 10.2, 10.2, "order", 10.0),
        (3, 10.8, 10.8, "order", 10.0),  # the cutoff lies between two orders of one day
        (3, 17.1, 17.1, "order", 10.0),
        (4, 3.0, 3.0, "order", 10.0),
        (4, 11.0, 11.0, "refund", -10.0),  # no order follows, but one of customer 5 does
        (5, 4.0, 4.0, "order", 10.0),
        (5, 12.0, 12.0, "order", 10.0),
    ]
    frame = pl.DataFrame(rows, schema=["customer", "event", "known", "event_type", "amount"], orient="row")
    store = stored(frame, tmp_path / "events", 20)
    shop = opened(store, tmp_path / "tokens", [at(10.5)], at(19.6))
    targets = shop.resident.batch(everyone(shop)).targets
    assert targets is not None
    assert targets.orders[:, 0].tolist() == [1, 1, 2, 0, 1]
    assert targets.refunds[:, 0].tolist() == [0, 0.5, 0, 1, 0]
    assert (targets.until == torch.inf).tolist() == [False, False, False, True, False]
    assert_as_realised(shop, [at(10.5)], [1, 5, 9])


def test_a_readout_sees_just_what_its_cutoff_allows(small: Shop) -> None:
    batch = small.resident.batch(everyone(small))
    starts = batch.cu_seqlens[:-1]
    owner = np.searchsorted(batch.cu_seqlens.numpy(), batch.at.numpy(), side="right") - 1
    for i, (code, cutoff) in enumerate(zip(small.readouts.customer, small.readouts.cutoff, strict=True)):
        row = np.searchsorted(small.tokens.customer, code)
        mine = small.tokens.available[small.tokens.offsets[row] : small.tokens.offsets[row + 1]]
        assert int(batch.at[i] - starts[owner[i]]) + 1 == (mine <= cutoff).sum()


def test_events_after_the_end_change_nothing(small: Shop, tmp_path: Path) -> None:
    rows = small.store.scan().collect()
    later = pl.col(EVENT_TIME) > END
    assert rows.filter(later).height
    changed = rows.with_columns(
        pl.when(later).then(pl.col(AMOUNT) * 7).otherwise(pl.col(AMOUNT)).alias(AMOUNT)
    )
    other = Store(tmp_path / "events", small.store.manifest)
    other.folder.mkdir()
    changed.write_parquet(other.shard_path(0))
    other.write_manifest()
    again = opened(other, tmp_path / "tokens", CUTOFFS, END)
    a, b = (s.resident.batch(everyone(s), torch.Generator().manual_seed(1)) for s in (small, again))
    assert again.vocabulary == small.vocabulary
    for name in ("kind", "numbers", "gaps", "silence", "features", "at"):
        assert torch.equal(torch.nan_to_num(getattr(a, name)), torch.nan_to_num(getattr(b, name)))
    assert a.targets is not None
    assert b.targets is not None
    for name in ("before", "until", "horizon", "orders", "gross", "refunds", "next_kind", "next_amount"):
        assert torch.equal(
            torch.nan_to_num(getattr(a.targets, name)), torch.nan_to_num(getattr(b.targets, name))
        )


def test_a_batch_is_part_of_the_whole(small: Shop) -> None:
    people = np.array([17, 3, 40])
    whole, part = small.resident.batch(everyone(small)), small.resident.batch(people)
    rows = small.resident.rows(people)
    assert torch.equal(part.silence.nan_to_num(), whole.silence[rows].nan_to_num())
    assert torch.equal(part.numbers[part.at], whole.numbers[whole.at[rows]])
    assert torch.equal(part.age[part.at], whole.age[whole.at[rows]])
    assert part.targets is not None
    assert whole.targets is not None
    assert torch.equal(part.targets.orders, whole.targets.orders[rows])
    assert part.cu_seqlens[-1] == len(part.kind) == small.resident.lengths[people].sum()
    np.testing.assert_array_equal(part.features.numpy(), small.readouts.features[rows])
    assert part.group is not None
    cutoffs = np.unique(small.readouts.cutoff[rows])
    np.testing.assert_array_equal(cutoffs[part.group.numpy()], small.readouts.cutoff[rows])


def test_random_horizons_end_with_the_window_and_repeat_with_the_seed(small: Shop) -> None:
    drawn = [
        small.resident.batch(everyone(small), torch.Generator().manual_seed(s)).targets for s in (1, 1, 2)
    ]
    first, again, other = drawn
    assert first is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first.horizon[:, -1], first.window)
    assert (first.horizon <= first.window[:, None]).all()
    assert torch.equal(first.horizon, again.horizon)
    assert not torch.equal(first.horizon, other.horizon)
    assert (first.orders[:, :-1] <= first.orders[:, -1:]).all()
    came = first.until < torch.inf
    assert ((first.orders[:, -1] > 0) == came).all()
    assert (first.before < first.until)[came].all()


def test_scoring_needs_no_future(small: Shop) -> None:
    at_the_end = readouts_at(small.store, [at(200)], at(200))
    with pytest.raises(InputError, match="no whole day"):
        resident(small.tokens, at_the_end, small.vocabulary, small.season)
    batch = resident(small.tokens, at_the_end, small.vocabulary, base=3).batch(np.arange(5))
    assert batch.targets is None
    assert set(batch.base.tolist()) == {3}


def test_readouts_without_events_or_twice_are_refused(small: Shop) -> None:
    early = replace(small.readouts, cutoff=np.full(len(small.readouts), int(at(0).timestamp() * 1e6) - 1))
    with pytest.raises(InputError, match="no event known"):
        resident(small.tokens, early, small.vocabulary)
    table = pl.DataFrame({"customer": [1, 1], "cutoff": [at(3), at(3)]})
    with pytest.raises(InputError, match="twice at one cutoff"):
        Readouts.of([table], FEATURES, END)


def test_features_are_taken_by_name_and_money_is_free_of_units() -> None:
    when = pl.lit(at(3)).dt.cast_time_unit("us")
    tables = [
        pl.DataFrame({"customer": [5, 2], "spend": [20.0, None], "web": [True, None]}).with_columns(
            cutoff=when
        ),
        pl.DataFrame({"customer": [3], "web": [False]}).with_columns(cutoff=when),
    ]
    found = Readouts.of(tables, ["web", "spend"], END, money=["spend"], order_value=10.0)
    assert found.customer.tolist() == [2, 3, 5]
    nan = np.nan
    np.testing.assert_allclose(found.features, [[nan, nan], [0, nan], [1, np.log(3)]], rtol=1e-6)


def test_customers_of_like_length_share_batches() -> None:
    lot = np.random.default_rng(0)
    lengths = np.exp(lot.normal(2, 1, 500)).astype(np.int64) + 1
    counts = lot.integers(1, 20, 500)
    sampler = Sampler(lengths, counts, readouts_per_batch=200, tokens_per_batch=2_000, seed=4)
    for batches in (sampler.epoch(0), sampler.epoch(1), sampler.in_order()):
        assert sorted(np.concatenate(batches).tolist()) == list(range(500))
        for people in batches:
            assert len(people) == 1 or counts[people].sum() <= 200
            assert len(people) == 1 or lengths[people].max() * len(people) <= 2_000
    assert sampler.padding_waste(sampler.in_order()) < sampler.padding_waste(sampler.epoch(0)) < 0.2
    at_random = [np.arange(i, i + 20) for i in range(0, 500, 20)]
    assert sampler.padding_waste(at_random) > 0.5
    assert sampler.padding_waste([np.array([0]), np.array([1])]) == 0
    first, again, next_one = sampler.epoch(0), sampler.epoch(0), sampler.epoch(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert [len(p) for p in first] != [len(p) for p in next_one]


@pytest.mark.parametrize("as_tensors", [False, True])
def test_search_agrees_with_counting(as_tensors: bool) -> None:
    lot = np.random.default_rng(2)
    lengths = np.array([0, 1, 5, 0, 9, 2])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    times = np.concatenate([np.sort(lot.integers(0, 12, n)) for n in lengths])
    rows, cutoffs = np.repeat(np.arange(6), 14), np.tile(np.arange(-1, 13), 6)
    given = [times, offsets[rows], offsets[rows + 1], cutoffs]
    ready: Any = [torch.from_numpy(array) for array in given] if as_tensors else given
    found = up_to(ready[0], ready[1], ready[2], ready[3], 9)
    counted = [
        offsets[r] + (times[offsets[r] : offsets[r + 1]] <= c).sum()
        for r, c in zip(rows, cutoffs, strict=True)
    ]
    assert found.tolist() == counted


def test_days_end_by_the_clocks_of_the_zone() -> None:
    before_summer_time = datetime.fromisoformat("2020-03-28T23:30:00+00:00")
    hours = np.diff(day_ends(before_summer_time, 2, "Europe/London")) / 3.6e9
    assert hours.tolist() == [23.0, 24.0]
    assert local_day(START, "UTC") == 18_262.0
    assert local_day(START, "Asia/Tokyo") == pytest.approx(18_262.375)


def test_cdnow_targets_are_what_was_realised(tmp_path: Path) -> None:
    if importlib.util.find_spec("lifetimes") is None:
        pytest.skip("CDNOW comes with lifetimes, which is not installed")
    store = prepare(DataOptions(source=Source.cdnow), tmp_path / "events")
    cutoffs = [instant(text, store.local_zone) for text in ("1997-09-30", "1997-12-24")]
    shop = opened(store, tmp_path / "tokens", cutoffs, store.observation_end)
    assert len(shop.tokens.customer) == 23_570
    assert shop.resident.counts.sum() == 2 * 23_570
    assert_as_realised(shop, cutoffs, [30, 188])
    batch = shop.resident.batch(everyone(shop))
    assert batch.targets is not None
    days = [
        shop.season.business_days(local_day(c, "UTC"), d) for c, d in zip(cutoffs, [273, 188], strict=True)
    ]
    np.testing.assert_allclose(np.unique(batch.targets.window), np.sort(days), rtol=1e-6)
