"""Customer bases with known truth, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from retinue.models.btyd import Histories
from retinue.models.fitting import Sample

Array = NDArray[np.float64]


def cdnow_file(name: str) -> Path:
    """A file inside the package lifetimes, which is not imported."""
    from importlib.util import find_spec

    package = find_spec("lifetimes")
    if package is None or package.origin is None:
        pytest.skip(
            "the package lifetimes, which carries CDNOW, is not installed (pip install 'retinue[demo]')"
        )
    return Path(package.origin).parent / "datasets" / name


def histories(*rows: tuple[float, float, float]) -> Histories:
    x, t_x, T = torch.tensor(rows, dtype=torch.float64).T
    return Histories(x.contiguous(), t_x.contiguous(), T.contiguous())


def sample(*rows: tuple[float, float, float, float]) -> Sample:
    x, t_x, T, count = torch.tensor(rows, dtype=torch.float64).T
    return Sample(torch.stack([x, t_x, T]), count.contiguous())


def simulate(
    kind: str, parameters: tuple[float, ...], customers: int, horizon: float, seed: int
) -> dict[str, Array]:
    """x, t_x, T and the orders in (T, T + horizon] of customers who live by the model's own story, order by order."""
    rng = np.random.default_rng(seed)
    T = rng.integers(50, 300, customers).astype(float)
    r, alpha, s, beta = parameters
    rate = rng.gamma(r, 1 / alpha, customers)
    death, quits = np.full(customers, np.inf), np.zeros(customers)
    if kind == "pareto_nbd":
        death = rng.exponential(1, customers) / rng.gamma(s, 1 / beta, customers)
    else:
        quits = rng.beta(s, beta, customers)
    live = ~(rng.random(customers) < quits) if kind == "mbg_nbd" else np.ones(customers, dtype=bool)
    now, x, t_x, ahead = (np.zeros(customers) for _ in range(4))
    while live.any():
        now = now + rng.exponential(1, customers) / rate
        live = live & (now <= death) & (now <= T + horizon)
        past = live & (now <= T)
        x, t_x, ahead = x + past, np.where(past, now, t_x), ahead + (live & (now > T))
        live = live & ~(rng.random(customers) < quits)
    return {"x": x, "t_x": t_x, "T": T, "ahead": ahead}
