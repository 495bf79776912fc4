"""The base model on a base that it has never seen: what it may look at, and what must not move a forecast."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from retinue.events.store import Store
from retinue.events.timeline import history
from retinue.forecasting import rungs, zero_shot
from retinue.forecasting.base_model import load_base_model
from retinue.forecasting.rungs import Scorer, fit_rung, training_at
from retinue.forecasting.scoring import Scoring
from retinue.forecasting.sequence import KnownStore
from retinue.forecasting.zero_shot import ZeroShot, zero_shot_at
from retinue.options import Options, Rung
from retinue.pretraining.pretrained import Pretrained
from retinue.schema import CLV, CUSTOMER_ID, EXPECTED_SPEND, MODEL, P_CHURN, InputError
from retinue.sequences.tokens import tokens_of
from tests.forecasting.nets import CUTOFF, HORIZONS, Base, made_base

ENDS = ["clv_lower", "clv_upper"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return made_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(autouse=True)
def shipped(tiny: Pretrained) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rungs, "base_model", lambda _: tiny)
        yield


def scorer_of(store: Store) -> tuple[Scorer, pl.DataFrame]:
    training = training_at(store, CUTOFF, HORIZONS, Options(), with_past=False)
    assert training.grid is None
    return fit_rung(Rung.zero_shot, training), training.buyers


def test_every_buyer_has_a_row_and_each_horizon_fits_the_others(base: Base) -> None:
    scorer, buyers = scorer_of(base.store)
    assert isinstance(scorer.predictor, ZeroShot)
    found = scorer(buyers, [30, 90, 365])
    assert found.height == 3 * buyers.height
    assert found[MODEL].unique().to_list() == ["zero_shot"]
    wide = found.pivot("horizon_days", index=CUSTOMER_ID, values=[P_CHURN, "expected_orders"])
    assert (wide["p_churn_30"] >= wide["p_churn_90"]).all()
    assert (wide["p_churn_90"] >= wide["p_churn_365"]).all()
    assert (wide["expected_orders_365"] >= wide["expected_orders_90"]).all()
    assert (wide["expected_orders_90"] >= 1 - wide["p_churn_90"] - 1e-9).all()


def test_shard_by_shard_it_says_the_same(base: Base, tiny_folder: Path) -> None:
    scorer, buyers = scorer_of(base.store)
    scoring = Scoring(load_base_model(tiny_folder), base.store, base.tokens, [CUTOFF], HORIZONS)
    parts = [scoring.shard(shard) for shard in range(base.store.manifest.shards)]
    assert min(part.height for part in parts) > 0
    found, wanted = pl.concat(parts).sort(CUSTOMER_ID, "horizon_days"), scorer(buyers, HORIZONS)
    assert_frame_equal(found.drop(ENDS), wanted.drop(ENDS), rel_tol=1e-4, abs_tol=1e-6)
    assert_frame_equal(found, wanted, rel_tol=1e-3, abs_tol=1e-5)


def test_nothing_after_the_cutoff_is_looked_at(base: Base) -> None:
    scorer, buyers = scorer_of(base.store)
    known = KnownStore(base.store.folder, base.store.manifest, base.store, CUTOFF)
    before, _ = scorer_of(known)
    assert history(base.store.scan(), CUTOFF).collect().height < base.store.scan().collect().height
    assert_frame_equal(before(buyers, HORIZONS), scorer(buyers, HORIZONS), rel_tol=1e-5, abs_tol=1e-8)


def test_a_hundred_times_the_money_is_a_hundred_times_the_value(base: Base, tiny: Pretrained) -> None:
    events = history(base.store.scan(), CUTOFF)
    _, buyers = scorer_of(base.store)
    said = []
    for factor in (1, 100):
        tokens = tokens_of(events.with_columns(pl.col("amount") * factor), "UTC")
        said.append(zero_shot_at(tiny, tokens, CUTOFF).outlook(buyers, HORIZONS, 0.1))
    np.testing.assert_allclose(said[1].p_churn, said[0].p_churn, rtol=1e-4)
    np.testing.assert_allclose(said[1].spend, 100 * said[0].spend, rtol=1e-3)


def test_others_in_the_base_matter_and_their_order_does_not(base: Base, tiny: Pretrained) -> None:
    events = history(base.store.scan(), CUTOFF).collect()
    _, buyers = scorer_of(base.store)
    some = buyers.filter(pl.col("customer") < 60)
    whole = zero_shot_at(tiny, tokens_of(events.lazy(), "UTC"), CUTOFF).outlook(some, HORIZONS, 0.0)
    shuffled = events.sample(fraction=1.0, shuffle=True, seed=1)
    again = zero_shot_at(tiny, tokens_of(shuffled.lazy(), "UTC"), CUTOFF).outlook(some, HORIZONS, 0.0)
    np.testing.assert_array_equal(again.orders, whole.orders)
    fewer = events.filter((pl.col("customer") < 60) | (pl.col("customer") > 120))
    other = zero_shot_at(tiny, tokens_of(fewer.lazy(), "UTC"), CUTOFF).outlook(some, HORIZONS, 0.0)
    assert np.abs(other.orders / whole.orders - 1).max() > 1e-3


def test_it_says_what_it_cannot_do(
    base: Base, tiny: Pretrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = tokens_of(base.store.scan(), "UTC")
    with pytest.raises(InputError, match="nobody had ordered by then"):
        zero_shot_at(tiny, tokens, CUTOFF - timedelta(days=900))
    _, buyers = scorer_of(base.store)
    ghost, said = buyers.with_columns(pl.col("customer") + 10_000), zero_shot_at(tiny, tokens, CUTOFF)
    with pytest.raises(InputError, match="have no order in the tokens"):
        said.outlook(ghost, HORIZONS, 0.0)
    monkeypatch.setattr(zero_shot, "shipped_base_model", lambda: tmp_path)
    with pytest.raises(InputError, match="shipped base model is missing"):
        zero_shot.shipped()


def test_without_events_the_best_law_stands_in(base: Base) -> None:
    from retinue.forecasting.score import forecast

    found = forecast(base.features, Options(), Rung.zero_shot, [30])
    wanted = forecast(base.features, Options(), Rung.pareto_nbd, [30])
    assert found[EXPECTED_SPEND].to_list() == wanted[EXPECTED_SPEND].to_list()
    assert found[CLV].min() is not None
