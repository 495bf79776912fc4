"""Causes sought in shards are those sought at once, of the same customers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from retinue.decisions.causes import NO_REASON, reasons
from retinue.decisions.causes_in_shards import reasons_in_shards
from retinue.decisions.quadrants import quadrants
from retinue.forecasting.rungs import Scorer
from retinue.forecasting.saved import SavedRung
from retinue.forecasting.scoring import score
from retinue.forecasting.table import buyers_of
from retinue.options import DecisionOptions, ModelOptions
from retinue.schema import CAUSE_STRENGTH, CUSTOMER_ID, CUTOFF, EVIDENCE, NAMED_CAUSE, VALUE_AT_STAKE
from retinue.sequences.tokens import write_tokens
from tests.forecasting.nets import CUTOFF as AT
from tests.forecasting.nets import HORIZONS, Base, made_base, made_rung, scoring_of
from tests.sequences.made import resharded

LONGEST = HORIZONS[-1]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return made_base(tmp_path_factory.mktemp("causes"))


@pytest.fixture(scope="module")
def rung(base: Base, tmp_path_factory: pytest.TempPathFactory) -> tuple[Scorer, SavedRung]:
    """Weights as loud as that make many causes."""
    return made_rung(base, tmp_path_factory.mktemp("gru"), ModelOptions(width=16), loudness=0.4)


def in_shards(base: Base, rung: SavedRung, out: Path, most: int) -> pl.DataFrame:
    job = scoring_of(base, rung)
    score(job, out)
    return reasons_in_shards(job, out, AT, LONGEST, most)


def test_they_are_those_of_the_fitted_rung_sought_at_once(
    base: Base, rung: tuple[Scorer, SavedRung], tmp_path: Path
) -> None:
    scorer, saved = rung
    assert in_shards(base, saved, tmp_path, 0).is_empty()
    told = in_shards(base, saved, tmp_path, 1_000).sort(CUSTOMER_ID)
    whole = reasons(scorer.predictor, buyers_of(base.features), LONGEST).sort(CUSTOMER_ID)
    assert told.height == whole.height > 100
    named = whole[NAMED_CAUSE] != NO_REASON
    assert 10 < named.sum() < whole.height - 10
    for column in (CUSTOMER_ID, CUTOFF, NAMED_CAUSE, EVIDENCE):
        assert told[column].to_list() == whole[column].to_list(), column
    assert told[CAUSE_STRENGTH].to_list() == pytest.approx(whole[CAUSE_STRENGTH].to_list(), rel=1e-3)
    assert "most telling event" in told.filter(named)[EVIDENCE].str.join()[0]


def test_those_with_the_most_at_stake_are_asked_about_largest_first(
    base: Base, rung: tuple[Scorer, SavedRung], tmp_path: Path
) -> None:
    scorer, saved = rung
    told = in_shards(base, saved, tmp_path, 40)
    stakes = quadrants(scorer(base.features, HORIZONS), DecisionOptions()).sort(
        VALUE_AT_STAKE, descending=True
    )
    assert told[CUSTOMER_ID].to_list() == stakes[CUSTOMER_ID].to_list()[:40]
    assert told[VALUE_AT_STAKE].to_list() == pytest.approx(stakes[VALUE_AT_STAKE].to_list()[:40], rel=1e-4)
    buyers = buyers_of(base.features)
    some = buyers.filter(pl.col(CUSTOMER_ID).is_in(told[CUSTOMER_ID].implode()))
    whole = told.select(CUSTOMER_ID).join(
        reasons(scorer.predictor, some, LONGEST), on=CUSTOMER_ID, maintain_order="left"
    )
    assert told[NAMED_CAUSE].to_list() == whole[NAMED_CAUSE].to_list()


def test_other_shards_change_nothing(base: Base, rung: tuple[Scorer, SavedRung], tmp_path: Path) -> None:
    one = resharded(base.store, tmp_path / "one", 1)
    other = replace(base, store=one, tokens=write_tokens(one, tmp_path / "tokens"))
    three = in_shards(base, rung[1], tmp_path / "out three", 60)
    told = in_shards(other, rung[1], tmp_path / "out one", 60)
    for column in (CUSTOMER_ID, NAMED_CAUSE, EVIDENCE):
        assert told[column].to_list() == three[column].to_list(), column
