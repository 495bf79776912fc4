"""What an order is worth: recovery, shrinkage, zeros, refunds, and bases without spread."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from retinue.models.gamma_gamma import GammaGamma, fit_gamma_gamma, gamma_gamma_log_likelihood


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def spenders(customers: int, seed: int) -> tuple[Tensor, Tensor]:
    """n and gross of customers whose values are Gamma(6, ν), ν ~ Gamma(4, 15)."""
    rng = np.random.default_rng(seed)
    n = rng.integers(1, 8, customers).astype(float)
    rate = rng.gamma(4.0, 1 / 15.0, customers)
    return torch.from_numpy(n), torch.from_numpy(rng.gamma(6.0 * n) / rate)


def test_density_of_the_mean_integrates_to_one() -> None:
    grid = torch.linspace(1e-3, 4_000, 400_001, dtype=torch.float64)
    columns = torch.stack([torch.full_like(grid, 3.0), grid])
    density = torch.exp(gamma_gamma_log_likelihood(column(6.0, 3.0, 15.0), columns))
    assert torch.trapezoid(density, grid).item() == pytest.approx(1.0, abs=1e-5)


def test_fit_recovers_the_truth() -> None:
    n, gross = spenders(8_000, seed=2)
    model = fit_gamma_gamma(n, gross, torch.zeros_like(gross))
    assert model is not None
    assert (model.p, model.q) == pytest.approx((6.0, 4.0), rel=0.12)
    assert model.mean(column(1.0), column(math.nan)).item() == pytest.approx(6 * 15 / 3, rel=0.03)


def test_mean_is_the_published_weighted_average() -> None:
    model = GammaGamma(6.25, 3.74, 15.44, 0.0)
    base = 6.25 * 15.44 / 2.74
    weight = 2.74 / (6.25 * 4 + 2.74)  # Fader, Hardie and Lee 2005, eq. 5
    assert model.mean(column(4.0), column(200.0)).item() == pytest.approx(
        weight * base + (1 - weight) * 50, rel=1e-12
    )


def test_zero_negative_and_unknown_amounts_are_read_plainly() -> None:
    model = GammaGamma(6.25, 3.74, 15.44, 0.0)
    zero, negative, unknown, paying = model.mean(
        column(3, 3, 3, 3), column(0.0, -20.0, math.nan, 100.0)
    ).tolist()
    assert zero == negative
    assert 0 < zero < paying
    assert unknown == pytest.approx(6.25 * 15.44 / 2.74)


def test_unit_of_money_does_not_matter() -> None:
    n, gross = spenders(500, seed=4)
    refunded = 0.1 * gross
    one, hundred = (fit_gamma_gamma(n, gross * unit, refunded * unit) for unit in (1.0, 100.0))
    assert one is not None
    assert hundred is not None
    assert (100 * one.mean(n, gross)).tolist() == pytest.approx(
        hundred.mean(n, 100 * gross).tolist(), rel=1e-9
    )
    kept = hundred.kept(100 * gross, 100 * refunded)
    assert one.kept(gross, refunded).tolist() == pytest.approx(kept.tolist(), rel=1e-9)


def test_order_of_customers_does_not_matter() -> None:
    n, gross = spenders(500, seed=5)
    turned = torch.from_numpy(np.random.default_rng(0).permutation(500))
    zero = torch.zeros_like(gross)
    assert fit_gamma_gamma(n, gross, zero) == fit_gamma_gamma(n[turned], gross[turned], zero)


def test_refund_share_lies_between_own_and_base() -> None:
    model = GammaGamma(6.0, 4.0, 15.0, refund_share=0.10)
    few, many, none = (
        1 - model.kept(column(30.0, 30_000.0, math.nan), column(15.0, 15_000.0, math.nan))
    ).tolist()
    assert 0.10 < few < many < 0.50
    assert many == pytest.approx(0.5, abs=0.01)
    assert none == pytest.approx(0.10)


def test_more_refunded_than_bought_keeps_nothing_and_never_less() -> None:
    model = GammaGamma(6.0, 4.0, 15.0, refund_share=0.5)
    assert model.kept(column(10.0), column(10_000.0)).item() == 0


@pytest.mark.parametrize(
    "gross",
    [
        column(10.0),
        column(*[20.0] * 2_000),
        column(1e-9, 1e9),
        column(0.0, -5.0, 12.0),
        column(*[0.01] * 50, 1e6),
    ],
)
def test_every_base_with_money_has_a_finite_fit(gross: Tensor) -> None:
    n = torch.ones_like(gross)
    model = fit_gamma_gamma(n, gross, torch.zeros_like(gross))
    assert model is not None
    square, variance = model.mean_square(n, gross)
    for part in (model.mean(n, gross), square, variance):
        assert bool((torch.isfinite(part) & (part >= 0)).all())


def test_equal_amounts_are_expected_again() -> None:
    gross = column(*[20.0] * 300)
    model = fit_gamma_gamma(torch.ones_like(gross), gross, torch.zeros_like(gross))
    assert model is not None
    assert model.mean(column(1.0), column(20.0)).item() == pytest.approx(20.0, rel=0.01)


@pytest.mark.parametrize("gross", [column(math.nan, math.nan), column(0.0, 0.0), column(-3.0)])
def test_no_money_is_no_model(gross: Tensor) -> None:
    assert fit_gamma_gamma(torch.ones_like(gross), gross, torch.zeros_like(gross)) is None


def test_customers_who_get_all_for_free_do_not_borrow_the_payers_value() -> None:
    rng = np.random.default_rng(4)
    n = torch.from_numpy(rng.integers(1, 6, 8_000).astype(np.float64))
    rate = rng.gamma(4.0, 0.1, 8_000)
    paid = torch.from_numpy(rng.gamma(2.0 * n.numpy(), 1 / rate))
    gross = torch.where(torch.arange(8_000) % 2 == 0, paid, torch.zeros_like(paid))
    model = fit_gamma_gamma(n, gross, torch.zeros_like(gross))
    assert model is not None
    assert model.paying_share == pytest.approx(0.5)
    free, payer = (model.mean(column(5.0), column(value)).item() for value in (0.0, 50.0))
    assert free < payer / 5
    assert model.mean(n, gross).mean().item() == pytest.approx((gross / n).mean().item(), rel=0.25)


def test_an_order_of_unknown_amount_is_not_one_of_nothing() -> None:
    rng = np.random.default_rng(5)
    orders = rng.integers(1, 8, 4_000)
    seen = np.maximum(rng.binomial(orders, 0.6), 0)
    gross = np.where(seen > 0, rng.gamma(3.0 * np.maximum(seen, 1), 1 / rng.gamma(6.0, 0.05, 4_000)), np.nan)
    known, money = torch.from_numpy(seen.astype(np.float64)), torch.from_numpy(gross)
    model = fit_gamma_gamma(known, money, torch.zeros_like(money))
    assert model is not None
    truth = 3.0 / (6.0 - 1) / 0.05
    assert model.mean(column(0.0), column(math.nan)).item() == pytest.approx(truth, rel=0.05)
