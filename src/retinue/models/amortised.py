"""A Pareto/NBD whose parameters a network reads off a base's summary, in place of a search for the likeliest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from retinue.models.btyd import ParetoNBD, pareto_nbd_log_likelihood
from retinue.models.encoders import Residual
from retinue.models.piecewise import PiecewiseLinear, spread

WIDTH = 96
BLOCKS = 1
_BOUND = 5.0  # on the logs of shapes, and of scales as shares of the history
_START = (0.0, -1.0, -0.5, 0.0)


class AmortisedLaw(nn.Module):
    """Summaries to (r, alpha, s, beta).

    Args:
        edges: (D, B) of the D numbers of a summary, see `PiecewiseLinear`.
    """

    def __init__(self, edges: Tensor) -> None:
        super().__init__()
        self.edges = edges
        self.seen = PiecewiseLinear(edges)
        self.first = spread(nn.Linear(self.seen.width, WIDTH))
        self.blocks = nn.Sequential(*(Residual(WIDTH, 0.0) for _ in range(BLOCKS)))
        self.out = nn.Linear(WIDTH, 4)
        nn.init.zeros_(self.out.weight)
        with torch.no_grad():
            self.out.bias.copy_(torch.tensor(_START))

    def forward(self, summary: Tensor, span: Tensor) -> Tensor:
        """Of B bases; (B, 4) float64.

        Args:
            summary: (B, D), NaN where null.
            span: (B,) days of history, in which scales are told.
        """
        raw = self.out(self.blocks(self.first(self.seen(summary)))).double()
        logs = _BOUND * torch.tanh(raw / _BOUND)
        one = torch.ones_like(span)
        found: Tensor = logs.exp() * torch.stack([one, span, one, span], 1)
        return found

    @torch.no_grad()
    def law(self, summary: Tensor, span: float) -> ParetoNBD:
        """Of one base, (D,)."""
        found = self.forward(summary[None], torch.tensor([span], dtype=torch.float64))[0].tolist()
        return ParetoNBD(*found)


def base_log_likelihoods(parameters: Tensor, columns: Tensor, base: Tensor) -> Tensor:
    """Log-likelihood of each of R customers under the parameters of its base; (R,).

    Args:
        parameters: (B, 4).
        columns: (3, R) x, t_x, T in days.
        base: (R,) long.
    """
    each = parameters[base].T
    found = torch.zeros_like(columns[0])
    # the integral's two orders of the scales are two calls, see `log_power_integral`
    for rows in ((each[1] > each[3]).nonzero()[:, 0], (each[1] <= each[3]).nonzero()[:, 0]):
        if len(rows):
            said = pareto_nbd_log_likelihood(each[:, rows].unbind(0), columns[:, rows])  # type: ignore[arg-type]
            found = found.index_add(0, rows, said)
    return found
