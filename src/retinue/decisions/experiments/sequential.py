"""Looking at an experiment while it runs, with the chance of a false alarm held over all looks.

Group-sequential bounds that spend the error as O'Brien and Fleming do (Lan and DeMets 1983), found by integrating the
density of the score statistic from look to look (Armitage, McPherson and Rowe 1969).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from retinue.schema import InputError

Array = NDArray[np.float64]
POINTS = 401
FURTHEST = 8.5


def spent(information: Array | float, alpha: float) -> Array:
    """Error spent by a share of the information: 2 - 2Φ(z/√t) on each side, with z the quantile of 1 - alpha/4."""
    edge = norm.ppf(1 - alpha / 4)
    share = np.clip(np.asarray(information, dtype=np.float64), 1e-12, 1.0)
    return np.asarray(4 * norm.sf(edge / np.sqrt(share)))


def bounds(information: Sequence[float], alpha: float = 0.05) -> Array:
    """|z| from which on each look stops; (looks,).

    Args:
        information: share of the planned information at each look, ascending, the last at most 1.
        alpha: chance of a false alarm over all looks, two-sided.

    Raises:
        InputError: shares that do not ascend within 0 to 1.
    """
    shares = np.asarray(information, dtype=np.float64)
    if not len(shares) or (np.diff(shares, prepend=0.0) <= 0).any() or shares[-1] > 1 + 1e-9:
        raise InputError(f"looks={list(information)}: must be ascending shares of the experiment, up to 1.")
    nodes, weights = np.polynomial.legendre.leggauss(POINTS)
    budget = np.diff(spent(shares, alpha), prepend=0.0)
    found: list[float] = []
    grid, density = np.zeros(1), np.ones(1)  # of the score S = z√t, as a point mass at 0
    for place, share in enumerate(shares):
        step = float(np.sqrt(share - (shares[place - 1] if place else 0.0)))

        most = FURTHEST * np.sqrt(share)

        def excess(
            edge: float, look: tuple[Array, Array, float, float] = (grid, density, step, budget[place])
        ) -> float:
            places, mass, apart, may = look
            over = norm.sf((edge - places) / apart) + norm.cdf((-edge - places) / apart)
            return float((mass * over).sum()) - may

        edge = brentq(excess, 1e-9, most) if excess(most) < 0 else most
        found.append(float(edge / np.sqrt(share)))
        places = nodes * edge
        passed = norm.pdf((places[:, None] - grid) / step) / step
        density = (passed @ density) * weights * edge
        grid = places
    return np.array(found)


def adjusted_level(information: Sequence[float], alpha: float = 0.05) -> float:
    """Two-sided level of the interval at the last of these looks: that of its bound."""
    return float(2 * norm.sf(bounds(information, alpha)[-1]))
