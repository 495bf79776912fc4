"""Parameters read off a summary: their likelihood is Pareto/NBD's, and learning brings them near the likeliest ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retinue.models.amortised import AmortisedLaw, base_log_likelihoods
from retinue.models.btyd import Histories, ParetoNBD, fit
from retinue.models.fitting import Sample
from retinue.models.piecewise import quantile_edges
from retinue.options import Rung
from retinue.pretraining.law import fit_amortised_law
from retinue.pretraining.pretrained import Prior
from retinue.pretraining.stream import simulated_base


def test_each_customer_is_read_under_its_own_base() -> None:
    parameters = torch.tensor(
        [[0.5, 70.0, 0.6, 80.0], [2.0, 30.0, 0.3, 400.0], [1.1, 90.0, 0.9, 20.0]]
    ).double()
    columns = torch.tensor(
        [[0.0, 3, 7, 0, 2, 1], [0.0, 60, 90, 0, 10, 80], [30.0, 70, 99, 200, 300, 80]]
    ).double()
    base = torch.tensor([0, 1, 2, 2, 1, 0])
    found = base_log_likelihoods(parameters, columns, base)
    for i, which in enumerate(base.tolist()):
        one = ParetoNBD(*parameters[which].tolist())
        alone = one.log_likelihood(Histories(*(column[i : i + 1] for column in columns)))
        assert found[i].item() == pytest.approx(alone.item(), rel=1e-9)


def test_scales_go_with_the_length_of_the_history() -> None:
    law = AmortisedLaw(quantile_edges(np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32), 4))
    with torch.no_grad():
        law.out.weight.normal_()
    summary = torch.randn(1, 4)
    short, long = (law(summary, torch.tensor([days], dtype=torch.float64))[0] for days in (100.0, 1_000.0))
    np.testing.assert_allclose((long / short).detach().numpy(), [1, 10, 1, 10])


def test_learning_comes_near_the_likeliest_parameters_of_bases_it_has_not_seen() -> None:
    law, inputs, score = fit_amortised_law(160, 120, 0, 0)
    untaught, _, before = fit_amortised_law(160, 0, 0, 0)
    assert inputs.shape[0] == 160
    assert score > before + 0.2
    regrets = []
    for i in range(6):
        base = simulated_base((9, i))
        columns = torch.from_numpy(
            np.stack([base.behaviour.frequency, base.behaviour.recency, base.behaviour.age])
        )
        of = Histories(*columns)
        best = fit(Rung.pareto_nbd, Sample(columns, torch.ones(columns.shape[1], dtype=torch.float64)))
        found = [law.law(base.law_inputs, base.units.span), untaught.law(base.law_inputs, base.units.span)]
        regrets.append([float((best.log_likelihood(of) - each.log_likelihood(of)).mean()) for each in found])
    taught, plain = np.median(regrets, axis=0)
    assert taught < plain / 3


def test_the_prior_tells_an_unlikely_base_from_a_likely_one() -> None:
    lot = torch.Generator().manual_seed(0)
    seen = torch.randn(400, 6, generator=lot)
    seen[::5, 2] = torch.nan
    prior = Prior.of(seen)
    usual = [prior.unlikeness(row) for row in seen[:100]]
    assert 0.3 < np.median(usual) < 0.7
    assert max(usual) <= 1
    assert prior.unlikeness(torch.full((6,), 8.0)) > 1.5
    assert 0 <= prior.unlikeness(torch.full((6,), torch.nan)) <= 1
