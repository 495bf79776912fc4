"""Gamma-Gamma: what a transaction of a customer is worth, and what of it comes back; in account currency."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retinue.models.fitting import Sample, maximise

FIT_ROWS = 65_536
REFUND_TRANSACTIONS = 5.0  # how many of the base's a customer's refund share is read against
LEAST_SHAPE = 2.05  # of the predictive inverse gamma, so that its variance is finite


def gamma_gamma_log_likelihood(parameters: Tensor, columns: Tensor) -> Tensor:
    """Log density of the mean of n transactions (Fader, Hardie and Lee 2005, "RFM and CLV", eq. 1a).

    Args:
        parameters: p, q - 1, gamma, so that q > 1 and every mean is finite.
        columns: (2, rows): n ≥ 1, mean value > 0.
    """
    p, above, gamma = parameters
    q = 1 + above
    n, mean = columns
    start = torch.lgamma(p * n + q) - torch.lgamma(p * n) - torch.lgamma(q)
    spread = p * n * torch.log(n * mean) - torch.log(mean) - (p * n + q) * torch.log(gamma + n * mean)
    log_density: Tensor = start + q * torch.log(gamma) + spread
    return log_density


@dataclass(frozen=True)
class GammaGamma:
    """A fitted Gamma-Gamma: values are Gamma(p, ν) with ν ~ Gamma(q, gamma); `gamma` in account currency.

    `refund_share` is the base's refunds over its gross value; `paying_share` the customers of known amounts who ever paid.
    """

    p: float
    q: float
    gamma: float
    refund_share: float
    paying_share: float = 1.0

    def mean(self, transactions: Tensor, gross: Tensor) -> Tensor:
        """E[gross value of a transaction | n of them worth `gross` in all]; (customers,).

        NaN (no amount known) gives the base's mean and a negative gross counts as zero. A gamma is never zero, so who
        has paid nothing in n transactions is a payer with probability Beta(paying_share, 1 - paying_share) after n
        misses, and then worth what payers are.
        """
        n, total = _paid(transactions, gross)
        return self._pays(transactions, gross) * self.p * (self.gamma + total) / (self.p * n + self.q - 1)

    def _pays(self, transactions: Tensor, gross: Tensor) -> Tensor:
        seen = torch.where(torch.isnan(gross), torch.zeros_like(gross), transactions)
        return torch.where(gross > 0, torch.ones_like(gross), self.paying_share / (1 + seen))

    def mean_square(self, transactions: Tensor, gross: Tensor) -> tuple[Tensor, Tensor]:
        """(E[m²], E[v]) with m the customer's own mean value and v its variance per transaction, given the past."""
        n, total = _paid(transactions, gross)
        shape = (self.p * n + self.q).clamp(min=LEAST_SHAPE)
        inverse = self._pays(transactions, gross) * (self.gamma + total) ** 2 / ((shape - 1) * (shape - 2))
        return self.p**2 * inverse, self.p * inverse

    def kept(self, gross: Tensor, refunded: Tensor) -> Tensor:
        """1 - the customer's refund share, shrunk to the base's; in [0, 1]."""
        against = REFUND_TRANSACTIONS * self.p * self.gamma / (self.p + self.q - 1)
        known = ~torch.isnan(gross)
        total = torch.where(known, gross, torch.zeros_like(gross)).clamp(min=0.0)
        back = torch.where(known, refunded, torch.zeros_like(gross))
        share = (back + self.refund_share * against) / (total + against)
        return 1 - share.clamp(0.0, 1.0)


def _paid(transactions: Tensor, gross: Tensor) -> tuple[Tensor, Tensor]:
    paid = gross > 0  # False for NaN
    zero = torch.zeros_like(gross)
    return torch.where(paid, transactions, zero), torch.where(paid, gross, zero)


def fit_gamma_gamma(
    transactions: Tensor, gross: Tensor, refunded: Tensor, limit: int = FIT_ROWS
) -> GammaGamma | None:
    """The value model of a base, the first order included; None where no customer has spent anything.

    Args:
        transactions: (customers,) number of transactions, ≥ 1.
        gross: (customers,) value of all of them before refunds; NaN where unknown. Only positive ones are
            fitted.
        refunded: (customers,) money paid back, ≥ 0.
        limit: distinct rows used; more are thinned evenly along (n, mean).
    """
    paying = gross > 0  # False for NaN
    if not bool(paying.any()):
        return None
    n, mean = transactions[paying].numpy(), (gross / transactions)[paying].numpy()
    unit = float(np.median(mean))
    order = np.lexsort((mean, n))
    columns = torch.from_numpy(np.stack([n[order], mean[order] / unit]))
    sample = Sample(columns, torch.ones(len(n), dtype=torch.float64)).thinned(limit)
    starts = ((1.5, 1.0, 0.5), (0.0, 0.0, 0.0), (3.0, 0.5, -2.0))
    p, above, gamma = maximise(gamma_gamma_log_likelihood, sample, starts).tolist()
    sold = np.sort(gross[paying].numpy()).sum()
    back = np.sort(torch.nan_to_num(refunded[paying]).numpy()).sum()
    known = int((~torch.isnan(gross)).sum())
    share = float(min(max(back / sold, 0.0), 1.0))
    return GammaGamma(p, 1 + above, gamma * unit, share, int(paying.sum()) / known)
