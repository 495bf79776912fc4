"""The simplest rung: everyone keeps buying at their own past rate, shrunk towards the base's. Times in days."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from retinue.models.btyd import LONGEST_WAIT_DAYS, Histories
from retinue.models.fitting import Sample, maximise

FIT_ROWS = 65_536


def nbd_log_likelihood(parameters: Tensor, columns: Tensor) -> Tensor:
    """Log-likelihood of x orders in T under a gamma-mixed Poisson rate, up to a constant (Ehrenberg 1959).

    Args:
        parameters: r, alpha; alpha in the unit of the times.
        columns: (3, rows): x, t_x, T; t_x says nothing here.
    """
    r, alpha = parameters
    x, _, T = columns
    log_likelihood: Tensor = (
        torch.lgamma(r + x) - torch.lgamma(r) + r * torch.log(alpha) - (r + x) * torch.log(alpha + T)
    )
    return log_likelihood


@dataclass(frozen=True)
class OwnRate:
    """A fitted negative binomial: rates are Gamma(r, alpha_days), and nobody is ever lost."""

    r: float
    alpha_days: float

    def p_alive(self, of: Histories) -> Tensor:
        """One for everyone."""
        return torch.ones_like(of.frequency)

    def p_order(self, of: Histories, horizon_days: Tensor) -> Tensor:
        """P(an order within the horizon)."""
        return -torch.expm1(
            -(self.r + of.frequency) * torch.log1p(horizon_days / (self.alpha_days + of.T_days))
        )

    def orders(self, of: Histories, horizon_days: Tensor) -> Tensor:
        """E[orders within each horizon]; horizons (h,) -> (h, customers)."""
        return horizon_days[:, None] * (self.r + of.frequency) / (self.alpha_days + of.T_days)

    def order_pairs(self, of: Histories, horizon_days: Tensor) -> Tensor:
        """E[N(N - 1)] within each horizon; horizons (h,) -> (h, customers)."""
        k = self.r + of.frequency
        return k * (k + 1) * (horizon_days[:, None] / (self.alpha_days + of.T_days)) ** 2

    def next_order_days(self, of: Histories) -> Tensor:
        """Median wait, NaN where an order within ten years is less likely than not."""
        days = (self.alpha_days + of.T_days) * torch.expm1(
            torch.log(torch.tensor(2.0)) / (self.r + of.frequency)
        )
        return torch.where(days <= LONGEST_WAIT_DAYS, days, torch.full_like(days, torch.nan))


def fit_own_rate(sample: Sample) -> OwnRate:
    """The base's r and alpha at their (weakly penalised) maximum likelihood.

    Args:
        sample: distinct x, t_x days, T days in a total order, with counts.
    """
    scale = float(sample.columns[2].max().clamp_min(1.0))
    thinned = sample.thinned(FIT_ROWS)
    units = torch.tensor([[1.0], [scale], [scale]], dtype=torch.float64)
    scaled = Sample(thinned.columns / units, thinned.weights)
    r, alpha = maximise(nbd_log_likelihood, scaled, ((-1.0, -2.0), (0.0, 0.0))).tolist()
    return OwnRate(r, alpha * scale)
