"""Two integrals behind the closed forms of repeat buying, in log space and with gradients."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

PANELS, PANEL_NODES = 2, 20
DROP = 40.0  # the integrand is followed down to e^-40 of its start
ROOT_STEPS = 12


def unit_nodes(count: int) -> tuple[Tensor, Tensor]:
    """Gauss–Legendre points and weights on [0, 1]; each (count,)."""
    points, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy((points + 1) / 2), torch.from_numpy(weights / 2)


def _panels() -> tuple[Tensor, Tensor]:
    points, weights = unit_nodes(PANEL_NODES)
    shifted = torch.cat([(points + panel) / PANELS for panel in range(PANELS)])
    return shifted, torch.log(torch.cat([weights / PANELS] * PANELS))


_POINTS, _LOG_WEIGHTS = _panels()


def log_power_integral(m: Tensor, n: Tensor, a: Tensor, b: Tensor, width: Tensor) -> Tensor:
    """Logarithm of ∫₀^width (a + y)^(-m) (b + y)^(-n) dy; a ≤ b in all rows, or a ≥ b in all; shape (rows,).

    With y = a(e^w - 1) the integrand is the exponential of a concave function of w whose slope changes
    slowly, so forty Gauss–Legendre points on the part above e^-40 of its start are enough, for exponents from
    0 to thousands alike. width > 0 in every row.
    """
    if bool((a > b).any()):
        m, n, a, b = n, m, b, a
    ratio = a / b
    span = torch.log1p(width / a)
    span = _followed(span, m, n, ratio)
    w = span * _POINTS[:, None]  # (nodes, rows)
    inside = (1 - m) * w - n * torch.log1p(ratio * torch.expm1(w))
    top = torch.logsumexp(_LOG_WEIGHTS[:, None] + inside, 0)
    return (1 - m) * torch.log(a) - n * torch.log(b) + torch.log(span) + top


def _followed(span: Tensor, m: Tensor, n: Tensor, ratio: Tensor) -> Tensor:
    """The span, cut where the integrand has fallen by e^-40: Newton from the right on a convex function."""
    with torch.no_grad():
        w = span.detach().clone()
        for _ in range(ROOT_STEPS):
            grown = torch.exp(w)
            fall = (m - 1) * w + n * torch.log1p(ratio * (grown - 1)) - DROP
            steep = (m - 1) + n * ratio * grown / (1 - ratio + ratio * grown)
            w = torch.where(fall > 0, w - fall / steep, w)
        cut = w < span
    return torch.where(cut, w, span)


def beta_nodes(a: Tensor, b: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Gauss–Jacobi points in (0, 1) and weights (sum 1) for Beta(a, b) densities; each (rows, count).

    From the recurrence of the orthogonal polynomials (Golub and Welsch 1969), which knows no overflow.
    """
    k = torch.arange(1, count, dtype=torch.float64)
    total = (a + b)[:, None]
    lead = (a / (a + b))[:, None]
    swing = 2 * k + total
    middle = 0.5 * (1 + (a[:, None] - b[:, None]) * (total - 2) / ((swing - 2) * swing))
    diagonal = torch.cat([lead, middle], 1)
    square = k * (k + a[:, None] - 1) * (k + b[:, None] - 1) * (k + total - 2)
    first = (a * b / ((a + b) ** 2 * (a + b + 1)))[:, None]  # the general term is 0/0 at k = 1, a + b = 1
    rest = (square / ((swing - 3) * (swing - 2) ** 2 * (swing - 1)))[:, 1:]
    beside = torch.sqrt(torch.cat([first, rest], 1))
    matrix = torch.diag_embed(diagonal) + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
    points, vectors = torch.linalg.eigh(matrix)
    return points.clamp(1e-14, 1.0), vectors[:, 0, :] ** 2


def exp_ratio(z: Tensor) -> Tensor:
    """(e^z - 1)/z, 1 at 0."""
    safe = torch.where(z == 0, torch.ones_like(z), z)
    return torch.where(z == 0, torch.ones_like(z), torch.expm1(safe) / safe)
