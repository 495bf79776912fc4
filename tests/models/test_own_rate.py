"""The simplest rung against simulation, and recovery of its parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retinue.models.btyd import Histories, predict
from retinue.models.fitting import Sample
from retinue.models.own_rate import OwnRate, fit_own_rate


def test_forecasts_are_those_of_a_gamma_poisson_rate() -> None:
    of = Histories(*torch.tensor([[0.0, 6.0], [0.0, 80.0], [90.0, 90.0]], dtype=torch.float64))
    said = predict(OwnRate(0.8, 30.0), of, [60], 0.0)
    lot = np.random.default_rng(0)
    for place, x in enumerate((0, 6)):
        orders = lot.poisson(60 * lot.gamma(0.8 + x, 1 / 120, 400_000))
        assert float(said.p_churn[0, place]) == pytest.approx(float((orders == 0).mean()), abs=0.003)
        assert float(said.expected_orders[0, place]) == pytest.approx(float(orders.mean()), rel=0.01)
        beyond = orders[orders > 0] - 1
        spread = beyond.mean() + beyond.mean() ** 2 / float(said.shape[0, place])
        assert spread == pytest.approx(float(beyond.var()), rel=0.03)


def test_the_median_wait_has_even_odds() -> None:
    of = Histories(*torch.tensor([[4.0], [50.0], [70.0]], dtype=torch.float64))
    model = OwnRate(1.0, 20.0)
    assert float(model.p_order(of, model.next_order_days(of))[0]) == pytest.approx(0.5)
    never = Histories(*torch.tensor([[0.0], [0.0], [3_000.0]], dtype=torch.float64))
    assert bool(torch.isnan(OwnRate(0.1, 20.0).next_order_days(never))[0])


def test_parameters_are_recovered() -> None:
    lot = np.random.default_rng(1)
    T = lot.integers(30, 400, 20_000).astype(float)
    x = lot.poisson(T * lot.gamma(0.7, 1 / 50, len(T))).astype(float)
    order = np.lexsort((T, x))
    columns = torch.from_numpy(np.stack([x, np.zeros_like(x), T])[:, order])
    found = fit_own_rate(Sample(columns, torch.ones(len(T), dtype=torch.float64)))
    assert found.r == pytest.approx(0.7, rel=0.05)
    assert found.alpha_days == pytest.approx(50, rel=0.07)
