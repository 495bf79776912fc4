"""Causes: what is planted is named, what is not is not, and a sentence says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retinue.config import resolve
from retinue.decisions.causes import NO_REASON, Falls, Family, Rules, _named, donors_of, occlusion, reasons
from retinue.decisions.evidence import SAYS, sentence
from retinue.forecasting.outlook import Array, Outlook, Values
from retinue.forecasting.rungs import fit_rung, training_at
from retinue.options import Rung
from retinue.pipeline import advance
from retinue.runs import Stage
from retinue.worlds.kinds import Kind, spec_of
from retinue.worlds.spec import Customers, Journeys, Spread
from retinue.worlds.world import simulate, write

CUTOFF = datetime(2023, 10, 2, 23, 59, 59, 999999, tzinfo=UTC)


@dataclass(frozen=True)
class Says:
    """A forecast whose log odds of churn are a weighted sum of features."""

    weights: dict[str, float]

    def outlook(self, buyers: pl.DataFrame, horizons: Sequence[int], discount_rate_yearly: float) -> Outlook:
        odds = -1.0 + sum(
            buyers[name].fill_null(0.0).to_numpy() * weight for name, weight in self.weights.items()
        )
        churn = np.tile(1 / (1 + np.exp(-odds)), (len(horizons), 1))
        ones = np.ones_like(churn)
        return Outlook(churn, 1 - churn, ones, ones, Values(ones[0], ones[0], ones[0]))

    def log_odds(self, buyers: pl.DataFrame, days: Sequence[float]) -> Array:
        raise NotImplementedError

    def next_order_days(self, buyers: pl.DataFrame) -> Array:
        raise NotImplementedError


def buyers(count: int = 300, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "customer_id": [f"c{i:04d}" for i in range(count)],
            "customer": rng.permutation(10**9 + np.arange(count)),
            "cutoff": pl.Series([CUTOFF] * count, dtype=pl.Datetime("us", "UTC")),
            "frequency": rng.integers(0, 8, count),
            "days_since_last": rng.integers(0, 200, count).astype(float),
            "silence_ratio": rng.uniform(0.1, 5, count),
            "unresolved_severe_ticket": np.zeros(count),
            "days_since_last_ticket": [None] * count,
            "tickets_90d": rng.integers(0, 2, count).astype(float),
            "visits_30d": rng.integers(2, 9, count).astype(float),
            "email_open_rate": rng.uniform(0.2, 0.6, count),
            "rating_mean": rng.uniform(3.5, 5, count),
        }
    )  # fmt: skip


WEIGHTS = {"unresolved_severe_ticket": 3.0, "visits_30d": -0.05, "days_since_last": 0.01, "rating_mean": -0.2}


def test_one_severe_ticket_outweighs_months_of_good_signals() -> None:
    rows = buyers()
    angry = rows.with_columns(
        pl.when(pl.int_range(pl.len()) == 7)
        .then(1.0)
        .otherwise("unresolved_severe_ticket")
        .alias("unresolved_severe_ticket"),
        pl.when(pl.int_range(pl.len()) == 7).then(12.0).otherwise(None).alias("days_since_last_ticket"),
        pl.when(pl.int_range(pl.len()) == 7).then(20.0).otherwise("visits_30d").alias("visits_30d"),
        pl.when(pl.int_range(pl.len()) == 7).then(5.0).otherwise("rating_mean").alias("rating_mean"),
    )
    told = reasons(Says(WEIGHTS), angry, 90)
    assert told["cause"].to_list() == [NO_REASON if i != 7 else "service" for i in range(300)]
    assert told["cause_strength"][7] == pytest.approx(3.0, abs=0.2)
    assert told["evidence"][7].startswith(f"silent for {angry['days_since_last'][7]:,.0f} day")
    assert "a severe ticket unresolved, last ticket 12 days ago" in told["evidence"][7]
    assert told["evidence"].null_count() == 299


def test_silence_alone_is_no_reason() -> None:
    """The longest silent are the most at risk, and no family of evidence has anything to do with it."""
    told = reasons(Says({"days_since_last": 0.05}), buyers(), 90)
    assert (told["cause"] == NO_REASON).all()
    assert (told["cause_strength"] == 0).all()


def test_good_signs_are_never_taken_for_bad_ones() -> None:
    """More visits than others mean less risk here: nobody's many visits are named, and few visits are."""
    rows = buyers().with_columns(
        pl.when(pl.int_range(pl.len()) < 30)
        .then(0.0)
        .otherwise(pl.col("visits_30d") + 30)
        .alias("visits_30d")
    )
    falls = occlusion(Says({"visits_30d": -0.1}), rows, 90)
    engagement = falls.by[0, falls.families.index(Family.engagement)]
    price = falls.by[0, falls.families.index(Family.price)]
    assert (engagement >= -1e-9).all()
    assert engagement[:30].min() > 1.0
    assert engagement[30:].mean() < 0.3
    assert (price <= 1e-9).all()  # fewer visits never lower the risk


def named(by: list[list[list[float]]], risk: float = 0.0) -> list[int]:
    """Causes of falls by (member, family, row)."""
    falls = np.array(by)
    families = (Family.price, Family.service)[: falls.shape[1]]
    found = _named(Falls(families, np.full((falls.shape[0], falls.shape[2]), risk), falls), Rules())[0]
    return [int(place) for place in found]


def test_a_reason_must_beat_the_noise_between_members_and_the_next_family() -> None:
    assert named([[[1.5]], [[1.6]]]) == [0]
    assert named([[[0.1]], [[3.0]]]) == [-1]  # the members disagree by more than its mean
    assert named([[[1.5], [1.4]], [[1.5], [1.4]]]) == [-1]  # two families say nearly the same
    assert named([[[1.5], [0.2]], [[1.5], [0.2]]]) == [0]
    assert named([[[0.9]], [[0.9]]]) == [-1]  # too weak
    assert named([[[1.5]], [[1.5]]], risk=-7.0) == [-1]  # a thousandth of churn less moves nobody


def test_donors_are_others_as_silent_whatever_the_order_of_rows() -> None:
    rows = buyers(2_000)
    found = donors_of(rows)
    assert (found != np.arange(2_000)[:, None]).all()
    silent = rows["days_since_last"].to_numpy()
    apart = np.abs(silent[found] - silent[:, None])
    assert apart.mean() < 0.25 * np.abs(silent[:, None] - silent[None, :]).mean()
    turned = rows.reverse()
    again = donors_of(turned)[::-1]
    ids = rows["customer_id"].to_numpy()
    assert (ids[found] == ids[::-1][again]).all()


def test_a_law_that_reads_no_evidence_has_no_reasons(tmp_path: Path) -> None:
    told = reasons(Says({}), buyers(), 90)
    assert (told["cause"] == NO_REASON).all()


@pytest.mark.parametrize("family", list(Family))
def test_every_family_has_words_also_where_nothing_is_known(family: Family) -> None:
    assert family.value in SAYS
    assert sentence(family.value, {}) == f"signs of {family.value}"
    assert sentence(family.value, {"days_since_last": 3.0}) == "silent for 3 days"
    assert "nan" not in sentence(
        family.value, dict.fromkeys(("days_since_last", "rating_mean"), float("nan"))
    )


def test_a_sentence_by_hand() -> None:
    facts = {"days_since_last": 74, "silence_ratio": 2.3, "tickets_90d": 1, "open_tickets": 1, "unresolved_severe_ticket": 1.0,
             "days_since_last_ticket": 12}  # fmt: skip
    assert sentence("service", facts) == (
        "silent for 74 days, 2.3× own norm; a severe ticket unresolved, last ticket 12 days ago; "
        "1 ticket in 90 days, 1 still open"
    )


def planted(folder: Path, journeys: Journeys, seed: int, customers: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Reasons by the trees on a simulated base, and its truth."""
    rich = replace(
        spec_of(Kind.rich),
        customers=Customers(rate=Spread(1 / 8, 0.4), dropout=Spread(1 / 250, 0.7)),
        days=540,
    )
    world = simulate(
        replace(rich, journeys=journeys, cutoffs=(CUTOFF,), horizons_days=(90,)), customers, seed
    )
    write(world, folder / "world")
    options = resolve(
        [
            f"data.path={folder}/world/events.parquet",
            "data.time_zone=UTC",
            "cutoff=2023-10-02",
            "horizon_days=90",
            f"output={folder}/run",
        ]
    )
    run = advance(options, Stage.features)
    training = training_at(run.store, run.cutoffs[-1], [90], options, run.read("features"))
    return reasons(fit_rung(Rung.xgboost, training).predictor, training.buyers, 90), world.truth


OFTEN = Journeys(tickets_per_order=0.2, reviews_per_order=0.25, lead_days=75.0, strength=8.0)


@pytest.mark.slow
def test_planted_causes_are_named_with_precision_and_recall(tmp_path: Path) -> None:
    told, truth = planted(tmp_path, OFTEN, 8, 6_000)
    living = told.join(truth.select("customer_id", "alive", "shown_cause"), on="customer_id").filter("alive")
    named = living.filter(pl.col("cause") != NO_REASON)
    right = named.filter(pl.col("cause") == pl.col("shown_cause")).height
    assert right / named.height >= 0.8
    assert right / living["shown_cause"].is_not_null().sum() >= 0.5


def test_without_causes_there_is_no_reliable_reason(tmp_path: Path) -> None:
    told, _ = planted(tmp_path, replace(OFTEN, strength=1.0, lead_days=1e-6), 2, 2_500)
    assert (told["cause"] == NO_REASON).sum() / told.height >= 0.95
