"""States that are advanced by new events say what reading every history anew would say."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from retinue.events.timeline import history, not_yet_known
from retinue.features.query import features_at
from retinue.forecasting import streaming
from retinue.forecasting.rungs import Scorer
from retinue.forecasting.saved import SavedRung
from retinue.forecasting.streaming import StreamingState
from retinue.forecasting.table import buyers_of, forecasts_table
from retinue.schema import CLV_LOWER, CLV_UPPER, CUSTOMER, CUSTOMER_ID, EXPECTED_ORDERS, InputError
from retinue.sequences.batches import Batch
from tests.forecasting.nets import CUTOFF, HORIZONS, Base

ENDS = [CLV_LOWER, CLV_UPPER]  # quantiles are steep where a lot is likely to be nothing
EARLY = CUTOFF - timedelta(days=130)


def known_between(base: Base, after: datetime | None, until: datetime) -> pl.LazyFrame:
    events = history(base.store.scan(), until)
    return events if after is None else not_yet_known(events, after)


def advanced(base: Base, rung: SavedRung, moments: list[datetime]) -> StreamingState:
    state = StreamingState(rung, "UTC")
    for moment in moments:
        state.update(known_between(base, state.through, moment), moment)
    return state


def replayed(base: Base, rung: SavedRung, features: pl.DataFrame) -> pl.DataFrame:
    rows = rung.rows(
        rung.predictor(base.tokens.read()),
        buyers_of(features),
        HORIZONS,
        base.training.options.value,
    )
    return forecasts_table([rows])


def assert_same(found: pl.DataFrame, wanted: pl.DataFrame) -> None:
    """To 1e-9: states that grew by news are those of whole histories to the last bit."""
    assert_frame_equal(found, wanted, rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize("which", ["gru", "contextual"])
def test_updates_by_days_equal_a_full_replay_also_after_a_rest_on_disk(
    base: Base, which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    rung: SavedRung = request.getfixturevalue(which)[1]
    state = advanced(base, rung, [EARLY])
    assert 0 < len(state.seen.customer) < base.features.height  # some come later
    for days in (30, 31, 60, 95, 130):
        moment = EARLY + timedelta(days=days)
        state.update(known_between(base, state.through, moment), moment)
        state.save(tmp_path / "state.safetensors")
        state = StreamingState.load(tmp_path / "state.safetensors", rung)
    assert state.through == CUTOFF
    found, wanted = state.forecast(base.features, HORIZONS), replayed(base, rung, base.features)
    assert_same(found, wanted)
    stale = advanced(base, rung, [EARLY])
    stale.update(base.store.scan().limit(0), CUTOFF)
    some = base.features.filter(pl.col(CUSTOMER).is_in(stale.seen.customer.tolist()))
    missed = stale.forecast(some, HORIZONS)
    moved = (missed[EXPECTED_ORDERS] / replayed(base, rung, some)[EXPECTED_ORDERS] - 1).abs().median()
    assert isinstance(moved, float)
    assert moved > 1e-3  # the months in between show


def test_the_day_after_needs_no_history(
    base: Base, gru: tuple[Scorer, SavedRung], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = advanced(base, gru[1], [CUTOFF])
    until = CUTOFF + timedelta(days=3)
    new = known_between(base, CUTOFF, until).collect()
    read: list[int] = []
    step = state.reader.step

    def counted(hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
        read.append(len(batch.kind))
        return step(hidden, batch)

    monkeypatch.setattr(state.reader, "step", counted)
    state.update(new.lazy(), until)
    assert sum(read) == new.height > 0
    features = features_at(base.store.scan(), until, "UTC", features=gru[1].features(new.columns)).collect()
    assert_same(state.forecast(features, HORIZONS), replayed(base, gru[1], features))


def test_the_order_of_rows_and_of_customers_changes_nothing(
    base: Base, gru: tuple[Scorer, SavedRung]
) -> None:
    state, other = advanced(base, gru[1], [EARLY]), advanced(base, gru[1], [EARLY])
    new = known_between(base, EARLY, CUTOFF).collect()
    state.update(new.lazy(), CUTOFF)
    other.update(new.sample(fraction=1.0, shuffle=True, seed=5).lazy(), CUTOFF)
    assert torch.equal(state.hidden, other.hidden)
    backwards = base.features.sort(CUSTOMER_ID, descending=True)
    assert_frame_equal(state.forecast(base.features, HORIZONS), other.forecast(backwards, HORIZONS))


def test_an_event_known_before_or_after_is_refused_and_changes_nothing(
    base: Base, gru: tuple[Scorer, SavedRung]
) -> None:
    state = advanced(base, gru[1], [EARLY])
    before = state.hidden.clone()
    one = known_between(base, EARLY, CUTOFF).head(1).collect()
    at_the_instant = one.with_columns(event_time=pl.lit(EARLY), known_time=pl.lit(EARLY))
    with pytest.raises(InputError, match="was known by"):
        state.update(at_the_instant.lazy(), CUTOFF)
    with pytest.raises(InputError, match="is known only after"):
        state.update(one.with_columns(known_time=pl.lit(CUTOFF + timedelta(microseconds=1))).lazy(), CUTOFF)
    with pytest.raises(InputError, match="cannot go back"):
        state.update(one.limit(0).lazy(), EARLY - timedelta(days=1))
    assert state.through == EARLY
    assert torch.equal(state.hidden, before)
    late = at_the_instant.with_columns(known_time=pl.lit(CUTOFF))
    state.update(late.lazy(), CUTOFF)  # happened before, known since: news
    assert not torch.equal(state.hidden, before)


def test_what_breaks_off_changes_nothing(
    base: Base, gru: tuple[Scorer, SavedRung], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, other = advanced(base, gru[1], [EARLY]), advanced(base, gru[1], [EARLY])
    monkeypatch.setattr(streaming, "READ_TOGETHER", (20, 32_768))
    hidden, customers = state.hidden.clone(), state.seen.customer.copy()
    step, asked = state.reader.step, iter(range(100))

    def breaks(given: torch.Tensor, batch: Batch) -> torch.Tensor:
        if next(asked) == 2:
            raise MemoryError
        return step(given, batch)

    monkeypatch.setattr(state.reader, "step", breaks)
    with pytest.raises(MemoryError):
        state.update(known_between(base, EARLY, CUTOFF), CUTOFF)
    assert state.through == EARLY
    assert torch.equal(state.hidden, hidden)
    assert state.seen.customer.tolist() == customers.tolist()
    for each in (state, other):
        each.update(known_between(base, EARLY, CUTOFF), CUTOFF)
    assert torch.equal(state.hidden, other.hidden)


def test_a_state_may_be_made_in_inference_mode_and_go_on_outside(
    base: Base, gru: tuple[Scorer, SavedRung]
) -> None:
    later = EARLY + timedelta(days=100)
    with torch.inference_mode():
        state = advanced(base, gru[1], [EARLY, later])
    known = known_between(base, later, CUTOFF).filter(pl.col(CUSTOMER).is_in(state.seen.customer.tolist()))
    state.update(known, CUTOFF)
    assert state.through == CUTOFF


def test_questions_it_cannot_answer_are_refused(
    base: Base,
    gru: tuple[Scorer, SavedRung],
    contextual: tuple[Scorer, SavedRung],
    transformer: tuple[Scorer, SavedRung],
    tmp_path: Path,
) -> None:
    state = advanced(base, gru[1], [EARLY])
    with pytest.raises(InputError, match="the state stands at"):
        state.forecast(base.features, HORIZONS)
    state.update(base.store.scan().limit(0), CUTOFF)
    with pytest.raises(InputError, match="were never seen by the state"):
        state.forecast(base.features, HORIZONS)
    state.save(tmp_path / "state.safetensors")
    with pytest.raises(InputError, match="was made by another checkpoint"):
        StreamingState.load(tmp_path / "state.safetensors", contextual[1])
    with pytest.raises(InputError, match="cannot be read"):
        StreamingState.load(tmp_path / "none.safetensors", gru[1])
    with pytest.raises(InputError, match="must be gru to stream"):
        StreamingState(transformer[1], "UTC")
    assert StreamingState(replace(gru[1]), "UTC").forecast(base.features.limit(0), HORIZONS).is_empty()
