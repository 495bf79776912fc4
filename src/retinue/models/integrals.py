"""Two integrals behind the closed forms of repeat buying, in log space and with gradients."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

PANELS, PANEL_NODES = 2, 20
DROP = 40.0  # the integrand is followed down to e^-40 of its start
ROOT_STEPS, CLOSE = 12, 1e-6


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
    0 to thousands alike. width > 0 in every row; gradients and second derivatives hold it constant.
    """
    if bool((a > b).any()):
        m, n, a, b = n, m, b, a
    at = torch.stack([each.expand_as(width) for each in (m, n, a, b)])
    with torch.no_grad():
        m, n, a, b = at
        ratio = a / b
        span = _followed(torch.log1p(width / a), m, n, ratio)
        w = span * _POINTS[:, None]  # (nodes, rows)
        rise = torch.expm1(w)
        far = ratio * rise
        v = torch.log1p(far)
        inside = _LOG_WEIGHTS[:, None] + (1 - m) * w - n * v
        top = torch.logsumexp(inside, 0)
        found = (1 - m) * torch.log(a) - n * torch.log(b) + torch.log(span) + top
    if not (at.requires_grad and torch.is_grad_enabled()):
        return found
    with torch.no_grad():
        share = torch.exp(inside - top)
        slope, curve = _slope_and_curve(at, (w, v, 1 / (1 + rise), 1 / (1 + far)), share)
    step = at - at.detach()  # 0: a parabola that touches the logarithm here has its slope and curve
    return found + ((slope + 0.5 * (curve * step[:, None]).sum(0)) * step).sum(0)


def _slope_and_curve(at: Tensor, seen: tuple[Tensor, ...], share: Tensor) -> tuple[Tensor, Tensor]:
    """First (4, rows) and second derivatives (4, 4, rows) of the logarithm of the integral in m, n, a, b.

    Means of the integrand's own slopes, and their covariances with the means of its curves.

    Args:
        at: m, n, a, b, (4, rows).
        seen: log((a + y)/a), log((b + y)/b), a/(a + y) and b/(b + y) at the points, each (nodes, rows).
        share: of each point in the integral, (nodes, rows).
    """
    m, n, a, b = at
    by = torch.stack([-torch.ones_like(m), -torch.ones_like(m), -m / a, -n / b])
    mean, both = torch.empty_like(by), torch.empty(4, *by.shape, dtype=by.dtype)
    for i in range(4):
        weighed = share * seen[i]
        mean[i] = weighed.sum(0)
        for j in range(i, 4):
            both[i, j] = both[j, i] = (weighed * seen[j]).sum(0)
    slope = by * mean
    slope[0] -= torch.log(a)
    slope[1] -= torch.log(b)
    curve = by[:, None] * by * (both - mean[:, None] * mean)
    for power, scale, exponent in ((0, 2, m), (1, 3, n)):
        base = at[scale]
        curve[power, scale] -= mean[scale] / base
        curve[scale, power] -= mean[scale] / base
        curve[scale, scale] += exponent / base**2 * both[scale, scale]
    return slope, curve


def _followed(span: Tensor, m: Tensor, n: Tensor, ratio: Tensor) -> Tensor:
    """The span, cut where the integrand has fallen by e^-40: Newton from the right on a convex function."""
    w = span
    for _ in range(ROOT_STEPS):
        grown = torch.exp(w)
        fall = (m - 1) * w + n * torch.log1p(ratio * (grown - 1)) - DROP
        ahead = fall > CLOSE  # row by row, so that no row's cut depends on its neighbours
        if not bool(ahead.any()):
            break
        steep = (m - 1) + n * ratio * grown / (1 - ratio + ratio * grown)
        w = torch.where(ahead, w - fall / steep, w)
    return w


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
