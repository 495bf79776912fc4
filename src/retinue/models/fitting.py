"""Maximum likelihood in float64: several L-BFGS starts on a thinned sample, then Newton on all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from retinue.accel.processes import one_thread

LogLikelihood = Callable[[Tensor, Tensor], Tensor]
"""(parameters (k,), columns (c, rows)) -> log-likelihood (rows,)."""

PRIOR_SCALE = 10.0  # standard deviation of each log-parameter: felt only where the data say nothing
LOG_BOUND = 12.0  # parameters stay within e^±12 in scaled units, also where the likelihood has no maximum
COARSE_ROWS = 1_024
CHUNK_ROWS = 4_096
MAX_NEWTON_STEPS = 60
STEP_TOLERANCE = 1e-11


@dataclass(frozen=True)
class Sample:
    """Distinct sufficient statistics with the number of customers that share each; rows in a total order.

    columns: (c, rows) float64; weights: (rows,) float64.
    """

    columns: Tensor
    weights: Tensor

    def __post_init__(self) -> None:
        assert self.columns.shape[1:] == self.weights.shape, (self.columns.shape, self.weights.shape)

    def thinned(self, limit: int) -> Sample:
        """At most `limit` rows by systematic sampling along the total order, weights kept in total.

        Evenly spaced customers of the sorted base are a stratified sample, so no seed is needed and the order
        of input rows has no influence.
        """
        if len(self.weights) <= limit:
            return self
        upto = torch.cumsum(self.weights, 0)
        total = upto[-1]
        places = (torch.arange(limit, dtype=torch.float64) + 0.5) * (total / limit)
        drawn, times = torch.unique_consecutive(torch.searchsorted(upto, places), return_counts=True)
        return Sample(self.columns[:, drawn], times.to(torch.float64) * (total / limit))


def parameters_of(free: Tensor) -> Tensor:
    """Positive parameters from unbounded ones: exp, saturating smoothly at e^±12."""
    return torch.exp(LOG_BOUND * torch.tanh(free / LOG_BOUND))


@one_thread()
def maximise(log_likelihood: LogLikelihood, sample: Sample, starts: Sequence[Sequence[float]]) -> Tensor:
    """Parameters (k,) at the maximum of the weighted log-likelihood with a weak normal prior on their logs.

    Args:
        log_likelihood: per row, from positive parameters.
        sample: the sufficient statistics.
        starts: log-parameters to start from; the best end on a thinned sample is polished on the whole one.
    """
    coarse = sample.thinned(COARSE_ROWS)
    ends = [_climb(log_likelihood, coarse, torch.tensor(start, dtype=torch.float64)) for start in starts]
    values = [float(_value(log_likelihood, coarse, end)) for end in ends]
    best = ends[max(range(len(ends)), key=lambda i: values[i] if values[i] == values[i] else -float("inf"))]
    return parameters_of(_polish(log_likelihood, sample, best))


def _penalised(log_likelihood: LogLikelihood, part: Sample, free: Tensor, share: float) -> Tensor:
    fit = torch.dot(part.weights, log_likelihood(parameters_of(free), part.columns))
    return fit - share * 0.5 * torch.sum((free / PRIOR_SCALE) ** 2)


def _chunks(sample: Sample) -> list[tuple[Sample, float]]:
    """Parts of the sample with each part's share of the prior."""
    rows = len(sample.weights)
    cuts = range(0, rows, CHUNK_ROWS)
    return [
        (Sample(sample.columns[:, i : i + CHUNK_ROWS], sample.weights[i : i + CHUNK_ROWS]), 1 / len(cuts))
        for i in cuts
    ]


def _value(log_likelihood: LogLikelihood, sample: Sample, free: Tensor) -> Tensor:
    with torch.no_grad():
        parts = [_penalised(log_likelihood, part, free, share) for part, share in _chunks(sample)]
    return torch.stack(parts).sum()


def _climb(log_likelihood: LogLikelihood, sample: Sample, start: Tensor) -> Tensor:
    """L-BFGS to a loose optimum; returns the start itself where the climb leaves the finite numbers."""
    size = float(sample.weights.sum())

    def loss(place: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        free = torch.from_numpy(place.copy()).requires_grad_()
        value = -_penalised(log_likelihood, sample, free, 1.0) / size
        (slope,) = torch.autograd.grad(value, free)
        return value.item(), slope.numpy()

    found = minimize(loss, start.numpy(), jac=True, method="L-BFGS-B", options={"maxiter": 60, "gtol": 1e-5})
    end = torch.from_numpy(found.x)
    return end if bool(torch.isfinite(end).all()) else start


def _derivatives(
    log_likelihood: LogLikelihood, sample: Sample, free: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Value, gradient (k,) and Hessian (k, k), summed over chunks that fit the cache."""
    size = len(free)
    value, slope, curve = torch.zeros(()), torch.zeros(size), torch.zeros(size, size)
    value, slope, curve = value.double(), slope.double(), curve.double()
    for part, share in _chunks(sample):
        at = free.detach().clone().requires_grad_()
        here = _penalised(log_likelihood, part, at, share)
        (first,) = torch.autograd.grad(here, at, create_graph=True)
        rows = [torch.autograd.grad(first[i], at, retain_graph=i + 1 < size)[0] for i in range(size)]
        value, slope, curve = value + here.detach(), slope + first.detach(), curve + torch.stack(rows)
    return value, slope, 0.5 * (curve + curve.T)


def _polish(log_likelihood: LogLikelihood, sample: Sample, start: Tensor) -> Tensor:
    """Newton steps with halving until the step is lost in rounding, so that threads cannot be told."""
    free = start
    for _ in range(MAX_NEWTON_STEPS):
        value, slope, curve = _derivatives(log_likelihood, sample, free)
        bends, axes = torch.linalg.eigh(-curve)
        floor = torch.finfo(torch.float64).eps ** 0.75 * float(bends.abs().max())
        step = axes @ ((axes.T @ slope) / bends.abs().clamp_min(max(floor, 1e-12)))
        step = step * min(1.0, 2.0 / float(step.abs().max().clamp_min(1e-300)))  # at most e² at a time
        for _ in range(40):
            ahead = _value(log_likelihood, sample, free + step)
            if bool(ahead >= value - 1e-13 * value.abs()):
                break
            step = step / 2
        free = free + step
        if float(step.abs().max()) < STEP_TOLERANCE:
            break
    return free
