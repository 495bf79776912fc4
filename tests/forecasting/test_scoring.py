"""A base scored shard by shard is the base scored at once, whoever scores it and however often it is killed."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from retinue.accel.processes import one_thread
from retinue.forecasting import clocked, scoring
from retinue.forecasting.intervals import COVERAGE, fit_levels, groups, tier_edges
from retinue.forecasting.rungs import Scorer
from retinue.forecasting.saved import SavedRung, load_rung, save_predictor, save_rung
from retinue.forecasting.scoring import Scoring, Share, part_path, read_forecasts, score
from retinue.forecasting.sequence import SequencePredictor
from retinue.models.amortised import AmortisedLaw
from retinue.schema import CUSTOMER, CUSTOMER_ID, CUTOFF, EXPECTED_ORDERS, FORECASTS, HORIZON_DAYS, InputError
from retinue.sequences.tokens import write_tokens
from tests.forecasting import nets
from tests.forecasting.nets import HORIZONS, Base, scoring_of
from tests.models.devices import NO_GPU
from tests.sequences.made import resharded

DAY = f"cutoff={nets.CUTOFF:%Y-%m-%d}"
KEYS = [str(CUSTOMER_ID), str(CUTOFF), str(HORIZON_DAYS)]


def whole(out: Path) -> pl.DataFrame:
    return FORECASTS.check(read_forecasts(out).collect().sort(KEYS))


def at_once(base: Base, scorer: Scorer) -> pl.DataFrame:
    return scorer(base.features, HORIZONS)


@pytest.fixture
def made(base: Base, gru: tuple[Scorer, SavedRung], monkeypatch: pytest.MonkeyPatch) -> pl.DataFrame:
    """Forecasts that stand in for those of a network, so that only the keeping of shards is at work."""
    said = at_once(base, gru[0])
    shards = base.store.manifest.shards
    codes = base.features.select(CUSTOMER_ID, pl.col(CUSTOMER) % shards)
    parts = said.join(codes, on=CUSTOMER_ID).partition_by(CUSTOMER, as_dict=True, include_key=False)
    monkeypatch.setattr(Scoring, "shard", lambda self, shard: parts[(shard,)])
    return said


@pytest.mark.parametrize("which", ["gru", "transformer", "contextual"])
def test_shards_scored_from_the_folder_are_the_base_scored_at_once_by_the_fitted_rung(
    base: Base, which: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "CUSTOMERS_AT_ONCE", 40)
    for room in (scoring, clocked):
        monkeypatch.setattr(room, "CONTEXT_CUSTOMERS", 40)
    scorer, rung = request.getfixturevalue(which)
    done = score(scoring_of(base, rung), tmp_path)
    assert done == scoring.Scored((0, 1, 2), (), ())
    assert_frame_equal(whole(tmp_path), at_once(base, scorer), rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize("shards", [1, 7, 40])
@pytest.mark.parametrize("which", ["gru", "transformer", "contextual"])
def test_forecasts_do_not_follow_from_shards_batches_or_threads(
    base: Base,
    which: str,
    shards: int,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = scoring_of(base, request.getfixturevalue(which)[1])
    with one_thread():
        score(job, tmp_path / "three")
    store = resharded(base.store, tmp_path / "store", shards)
    other = replace(job, store=store, tokens=write_tokens(store, tmp_path / "tokens"))
    monkeypatch.setattr(clocked, "READOUTS_PER_BATCH", 7)
    monkeypatch.setattr(clocked, "READ_TOGETHER", (7, 200))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        score(other, tmp_path / "other")
    finally:
        torch.set_num_threads(threads)
    # float32 products that rounded otherwise would differ by 1e-7
    assert_frame_equal(whole(tmp_path / "three"), whole(tmp_path / "other"), rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)
@pytest.mark.parametrize("which", ["gru", "transformer", "contextual"])
def test_shards_scored_on_a_gpu_are_those_scored_on_the_cpu(
    base: Base, which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    scorer, rung = request.getfixturevalue(which)
    try:
        rung.trained.network.to("cuda")
        score(scoring_of(base, rung), tmp_path)
    finally:
        rung.trained.network.cpu()
    assert_frame_equal(whole(tmp_path), at_once(base, scorer), rel_tol=1e-4, abs_tol=1e-6)


def test_every_cutoff_asked_for_has_its_rows(base: Base, gru: tuple[Scorer, SavedRung]) -> None:
    job = scoring_of(base, gru[1])
    earlier = nets.CUTOFF - timedelta(days=60)
    both = replace(job, cutoffs=[nets.CUTOFF, earlier]).shard(0)
    assert_frame_equal(both.filter(pl.col(CUTOFF) == nets.CUTOFF), job.shard(0))
    assert 0 < both.filter(pl.col(CUTOFF) == earlier).height < job.shard(0).height


def test_the_network_is_heard_in_the_forecasts(base: Base, gru: tuple[Scorer, SavedRung]) -> None:
    scorer, rung = gru
    said = at_once(base, scorer)
    assert not isinstance(rung.first, AmortisedLaw)
    first = replace(scorer, predictor=rung.first)(base.features, HORIZONS)
    assert (said[EXPECTED_ORDERS] - first[EXPECTED_ORDERS]).abs().mean() > 0.1  # type: ignore[operator]
    assert np.corrcoef(said[EXPECTED_ORDERS], first[EXPECTED_ORDERS])[0, 1] < 0.99


def test_two_processes_share_the_shards_and_write_what_one_writes(
    base: Base, gru: tuple[Scorer, SavedRung], tmp_path: Path
) -> None:
    job = scoring_of(base, gru[1])
    score(job, tmp_path / "one")
    first = score(job, tmp_path / "two", Share(1, 2))
    assert first.written == (1,)
    assert first.totals is None
    last = score(job, tmp_path / "two", Share(0, 2))
    assert last.written == (0, 2)
    assert last.totals is not None
    rows = scoring.read_forecasts(tmp_path / "two").collect()
    of_one = rows.filter(pl.col("horizon_days") == rows["horizon_days"].min())
    assert last.totals["customers"][0] == of_one.height
    assert last.totals["clv"][0] == pytest.approx(of_one["clv"].sum())
    assert pl.read_parquet(tmp_path / "two" / "forecasts_summary.parquet").equals(last.totals)
    assert_frame_equal(whole(tmp_path / "one"), whole(tmp_path / "two"))


def test_whoever_rewrites_a_shard_first_removes_what_was_made_of_all(
    made: pl.DataFrame, base: Base, gru: tuple[Scorer, SavedRung], tmp_path: Path
) -> None:
    job = scoring_of(base, gru[1])
    score(job, tmp_path)
    for name in scoring.OF_ALL_SHARDS:
        (tmp_path / name).touch()
    score(job, tmp_path, Share(1, 2))  # nothing to rewrite
    assert all((tmp_path / name).is_file() for name in scoring.OF_ALL_SHARDS)
    score(job, tmp_path, Share(1, 2), mark="other code")
    assert not any((tmp_path / name).exists() for name in scoring.OF_ALL_SHARDS)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("column", ["p_churn", "expected_orders", "expected_spend", "clv"])
def test_a_shard_that_is_not_finite_is_not_kept(
    made: pl.DataFrame,
    base: Base,
    gru: tuple[Scorer, SavedRung],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    column: str,
    value: float,
) -> None:
    job, whole_shard = scoring_of(base, gru[1]), Scoring.shard
    who = whole_shard(job, 1)[CUSTOMER_ID][0]
    astray = pl.when(pl.col(CUSTOMER_ID) == who).then(value).otherwise(pl.col(column)).alias(column)
    with monkeypatch.context() as patched:
        patched.setattr(Scoring, "shard", lambda self, shard: whole_shard(self, shard).with_columns(astray))
        with pytest.raises(
            InputError, match=f"'{column}' of 2 rows is no finite number .first: customer {who}"
        ):
            score(job, tmp_path)
    assert score(job, tmp_path).written == (1, 2)


def test_a_killed_run_leaves_whole_shards_and_goes_on_from_them(
    made: pl.DataFrame,
    base: Base,
    gru: tuple[Scorer, SavedRung],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, written = scoring_of(base, gru[1]), []
    write = pl.DataFrame.write_parquet

    def dies_at_the_second(frame: pl.DataFrame, path: Path, **options: Any) -> None:
        write(frame, path, **options)
        written.append(path)
        if len(written) == 2:
            path.write_bytes(path.read_bytes()[:100])
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pl.DataFrame, "write_parquet", dies_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            score(job, tmp_path / "broken")
    assert [part_path(tmp_path / "broken", DAY, s).is_file() for s in range(3)] == [True, False, False]
    assert score(job, tmp_path / "broken") == scoring.Scored((1, 2), (0,), ())
    assert_frame_equal(whole(tmp_path / "broken"), made.sort(KEYS))
    assert score(job, tmp_path / "broken") == scoring.Scored((), (0, 1, 2), ())


def test_what_follows_from_other_inputs_is_written_anew(
    made: pl.DataFrame,
    base: Base,
    gru: tuple[Scorer, SavedRung],
    contextual: tuple[Scorer, SavedRung],
    tmp_path: Path,
) -> None:
    job = scoring_of(base, gru[1])
    score(job, tmp_path)
    changed: Sequence[tuple[Scoring, str]] = [
        (replace(job, horizons=[30]), ""),
        (replace(job, cutoffs=[nets.CUTOFF]), ""),
        (replace(job, value=replace(job.value, margin_rate=0.5)), ""),
        (replace(job, rung=contextual[1]), ""),
        (job, "other code"),
    ]
    for other, mark in changed:
        assert score(other, tmp_path, mark=mark).written == (0, 1, 2)
        assert score(other, tmp_path, mark=mark).kept == (0, 1, 2)
    part_path(tmp_path, DAY, 1).write_bytes(b"cut short")
    assert score(job, tmp_path, mark="other code") == scoring.Scored((1,), (0, 2), ())


def test_shards_of_an_earlier_run_that_had_more_are_gone(
    made: pl.DataFrame, base: Base, gru: tuple[Scorer, SavedRung], tmp_path: Path
) -> None:
    job = scoring_of(base, gru[1])
    score(job, tmp_path)
    shutil.copytree(part_path(tmp_path, DAY, 0).parent, part_path(tmp_path, DAY, 3).parent)
    assert whole(tmp_path).select(KEYS).is_duplicated().any()
    score(job, tmp_path)
    assert not whole(tmp_path).select(KEYS).is_duplicated().any()


def test_a_shard_in_another_process_hands_is_left_to_it(
    made: pl.DataFrame, base: Base, gru: tuple[Scorer, SavedRung], tmp_path: Path
) -> None:
    (tmp_path / ".scored").mkdir()
    with (tmp_path / ".scored" / f"{DAY}-shard-00001.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert score(scoring_of(base, gru[1]), tmp_path) == scoring.Scored((0, 2), (), (1,))
    assert not part_path(tmp_path, DAY, 1).exists()


def test_thirds_of_the_base_hold_for_a_part_of_it(base: Base) -> None:
    buyers = base.training.buyers
    edges = tier_edges(buyers)
    assert groups(buyers, 60, edges).tolist() == groups(buyers, 60).tolist()
    part = buyers[::7]
    assert groups(part, 60, edges).tolist() == groups(buyers, 60)[::7].tolist()
    assert groups(part, 60, edges).tolist() != groups(part, 60).tolist()
    same = buyers.with_columns(net_spend_ever=pl.lit(5.0))
    assert groups(same, 60, tier_edges(same)).tolist() == groups(same, 60).tolist()


def test_a_rung_of_which_no_past_is_known_has_nominal_intervals(
    base: Base, gru: tuple[Scorer, SavedRung], tmp_path: Path
) -> None:
    scorer, rung = gru
    inner = rung.predictor(base.tokens.read())
    network = getattr(inner, "inner", inner)
    assert isinstance(network, SequencePredictor)
    made = rung_folder(base, gru, tmp_path)
    save_predictor(network, scorer.rung, made)
    found = load_rung(made)
    assert found.correction is None
    assert found.levels.of(base.training.buyers).tolist() == [COVERAGE] * base.training.buyers.height
    assert found.digest != rung.digest


def test_what_is_made_of_all_shards_is_gone_until_all_stand_again(
    made: pl.DataFrame, base: Base, gru: tuple[Scorer, SavedRung], tmp_path: Path
) -> None:
    job, page, summary = (
        scoring_of(base, gru[1]),
        tmp_path / "forecasts.html",
        tmp_path / "forecasts_summary.parquet",
    )
    score(job, tmp_path)
    page.write_text("of all shards")
    score(job, tmp_path, Share(0, 2))
    assert page.is_file(), "all shards stand"
    other = replace(job, horizons=[30])
    score(other, tmp_path, Share(0, 2))
    assert (page.is_file(), summary.is_file()) == (False, False)
    score(other, tmp_path, Share(1, 2))
    assert summary.is_file()


def test_one_process_adds_up_while_others_go_home(
    made: pl.DataFrame, base: Base, gru: tuple[Scorer, SavedRung], tmp_path: Path
) -> None:
    (tmp_path / ".scored").mkdir()
    with (tmp_path / ".scored" / "summary.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        done = score(scoring_of(base, gru[1]), tmp_path)
        assert (done.written, done.totals) == ((0, 1, 2), None)
        assert not (tmp_path / "forecasts_summary.parquet").exists()


def rung_folder(base: Base, gru: tuple[Scorer, SavedRung], folder: Path) -> Path:
    """A copy of the checkpoint."""
    from retinue.training.checkpoint import save_checkpoint

    save_checkpoint(gru[1].trained, folder / "rung")
    return folder / "rung"


def test_mistakes_are_told_in_one_line(base: Base, gru: tuple[Scorer, SavedRung], tmp_path: Path) -> None:
    scorer, rung = gru
    with pytest.raises(InputError, match=r"holds no card\.json"):
        load_rung(tmp_path)
    folder = rung_folder(base, gru, tmp_path)
    with pytest.raises(InputError, match=r"holds no rung\.json"):
        load_rung(folder)
    (folder / "rung.json").write_text('{"rung": "sequence_gru"}')
    with pytest.raises(InputError, match=r"rung\.json cannot be read"):
        load_rung(folder)
    with pytest.raises(InputError, match="rank=2: must lie between 0 and"):
        Share(2, 2)
    other = replace(base.store, manifest=replace(base.store.manifest, fingerprint="other"))
    with pytest.raises(InputError, match="the tokens are not those of"):
        replace(scoring_of(base, rung), store=other)
    assert not isinstance(rung.first, AmortisedLaw)
    untrained = replace(scorer, predictor=rung.first, levels=fit_levels([], 90))
    with pytest.raises(InputError, match="has learnt nothing beyond"):
        save_rung(untrained, base.training.buyers, folder)
