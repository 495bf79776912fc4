"""What features and events add to the risk: against their definitions, and against Captum."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from retinue.forecasting.rungs import fit_rung
from retinue.forecasting.sequence import SequencePredictor
from retinue.forecasting.telling import event_parts, feature_parts, integrated
from retinue.forecasting.trees import Trees, matrix
from retinue.options import Encoder, ModelOptions
from tests.forecasting.nets import Base, made_base, made_rung

DAYS = 90


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return made_base(tmp_path_factory.mktemp("telling"))


def network_of(base: Base, folder: Path, encoder: Encoder) -> SequencePredictor:
    from retinue.forecasting.calibration import Recalibrated

    scorer, _ = made_rung(base, folder, ModelOptions(encoder=encoder, width=16, heads=2, dropout=0.0))
    predictor = scorer.predictor
    inner = predictor.inner if isinstance(predictor, Recalibrated) else predictor
    assert isinstance(inner, SequencePredictor)
    return inner


@pytest.mark.parametrize("encoder", [Encoder.gru, Encoder.transformer])
def test_the_parts_of_a_customer_s_events_are_the_difference_that_they_make(
    base: Base, tmp_path: Path, encoder: Encoder
) -> None:
    """With every event typical the log odds would be others; by so much do the parts add up."""
    from retinue.forecasting.clocked import context_of
    from retinue.forecasting.outlook import logit
    from retinue.forecasting.telling import _log_odds
    from retinue.sequences.readouts import local_day
    from retinue.sequences.resident import resident

    rung, buyers = network_of(base, tmp_path, encoder), base.training.buyers
    found = event_parts(rung, buyers, DAYS)
    assert found is not None
    readouts = rung.readouts(buyers)
    data = resident(rung.tokens, readouts, rung.trained.vocabulary)
    people = np.arange(len(data.lengths))
    batch, network = data.batch(people), rung.trained.network
    days = rung.trained.season.business_days(
        local_day(buyers["cutoff"][0], rung.zone), np.array([float(DAYS)])
    )
    context = context_of(rung.trained, rung.tokens, readouts)
    odds = partial(_log_odds, network, batch, int(data.lengths.max()), context, days)
    with torch.no_grad():
        embedded = network.embed(batch)
        typical = embedded.mean(0, keepdim=True).expand_as(embedded)
        difference = (odds(embedded) - odds(typical)).double().numpy()
    sums = found.group_by("customer", maintain_order=True).agg(pl.col("part").sum())["part"].to_numpy()
    assert sums == pytest.approx(difference, abs=2e-3 * np.abs(difference).max())
    assert np.abs(difference).max() > 0.1
    told = logit(rung.outlook(buyers.sort("customer"), [DAYS], 0.0).p_churn[0])
    with torch.no_grad():
        ours = odds(embedded).double().numpy()
    sane = told > -30  # a forecast's odds end there
    assert sane.sum() > 100
    assert ours[sane] == pytest.approx(told[sane], abs=1e-3)
    known = found.group_by("customer", maintain_order=True).len()["len"].to_numpy()
    assert known.tolist() == data.lengths.tolist()


def test_as_captum_has_it() -> None:
    captum = pytest.importorskip("captum.attr", reason="captum is not installed: pip install 'retinue[dev]'")
    lot = torch.Generator().manual_seed(0)
    rows, start = torch.randn(40, 6, generator=lot), torch.randn(1, 6, generator=lot)
    weights = torch.randn(6, generator=lot)

    def odds(embedded: torch.Tensor) -> torch.Tensor:
        return torch.tanh(embedded @ weights) + (embedded**2).sum(1)

    ours = integrated(odds, rows, start)
    theirs = captum.IntegratedGradients(odds).attribute(rows, start, n_steps=200).sum(1).numpy()
    assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4)


def test_tree_parts_add_up_to_the_correction(base: Base) -> None:
    from retinue.forecasting.calibration import Recalibrated
    from retinue.forecasting.trees import FIRST_DAYS
    from retinue.options import Rung

    predictor = fit_rung(Rung.xgboost, base.training).predictor
    trees = predictor.inner if isinstance(predictor, Recalibrated) else predictor
    assert isinstance(trees, Trees)
    buyers = base.training.buyers
    table = matrix(buyers, trees.columns, trees.first.outlook(buyers, FIRST_DAYS, 0.0))
    parts = trees.boosted.order_parts(table)
    assert parts.sum(axis=1) == pytest.approx(trees.boosted.order_corrections(table), abs=1e-5)
    told = feature_parts(predictor, buyers)
    assert list(told) == list(trees.columns)
    assert told[trees.columns[0]] == pytest.approx(-parts[:, 0])


def test_a_law_has_no_parts(base: Base) -> None:
    from retinue.options import Rung

    law = fit_rung(Rung.pareto_nbd, base.training).predictor
    assert feature_parts(law, base.training.buyers) == {}
    assert event_parts(law, base.training.buyers, DAYS) is None
