"""The two integrals against 25-digit references and closed forms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from retinue.models.integrals import beta_nodes, exp_ratio, log_power_integral

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "btyd.json").read_text())


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("case", GOLDEN["integrals"])
def test_power_integral_agrees_with_mpmath(case: list[float]) -> None:
    *arguments, expected = case
    got = log_power_integral(*(column(value) for value in arguments)).item()
    assert got == pytest.approx(expected, rel=1e-12, abs=1e-8)


def test_power_integral_with_one_power_is_elementary() -> None:
    # ∫₀² (3 + y)^-2 dy = 1/3 - 1/5
    got = log_power_integral(column(0.0), column(2.0), column(1.0), column(3.0), column(2.0))
    assert torch.exp(got).item() == pytest.approx(1 / 3 - 1 / 5, rel=1e-12)


def test_power_integral_does_not_depend_on_the_order_of_its_factors() -> None:
    m, n, a, b, width = (column(value) for value in (2.5, 40.0, 3.0, 0.2, 9.0))
    assert log_power_integral(m, n, a, b, width).item() == log_power_integral(n, m, b, a, width).item()


@pytest.mark.parametrize(
    "case", [(1.7, 3.0, 2.0, 5.0), (3.0, 1.7, 5.0, 2.0), (0.0, 2.0, 1.0, 3.0), (90.0, 0.4, 0.7, 0.9)]
)
@pytest.mark.parametrize("width", [0.01, 4.0, 1e4])
def test_power_integral_has_the_right_gradients(case: tuple[float, ...], width: float) -> None:
    arguments = tuple(column(value, 1.1 * value).requires_grad_() for value in case)

    def of(m: Tensor, n: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return log_power_integral(m, n, a, b, column(width, width))

    assert torch.autograd.gradcheck(of, arguments)
    assert torch.autograd.gradgradcheck(of, arguments)


@pytest.mark.parametrize(("a", "b"), [(0.793, 2.4), (0.01, 0.01), (0.5, 0.5), (100.0, 3000.0), (0.3, 1500.0)])
def test_beta_nodes_give_the_moments_of_the_beta_distribution(a: float, b: float) -> None:
    points, weights = beta_nodes(column(a), column(b), 32)
    moment = 1.0
    for power in range(1, 8):
        moment *= (a + power - 1) / (a + b + power - 1)
        assert (weights * points**power).sum().item() == pytest.approx(moment, rel=1e-10)


def test_exp_ratio_is_one_at_zero_and_smooth_beside_it() -> None:
    assert exp_ratio(column(0.0, 1e-12, 1.0)).tolist() == pytest.approx(
        [1.0, 1.0 + 5e-13, 1.718281828459045], rel=1e-12
    )
