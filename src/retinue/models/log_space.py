"""Logarithms of small probabilities and large counts that hold in float32, with their gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_TINY_LOG = -7.0  # below it three terms of the series are exact to 1e-12
_ALL_LOG = 6.0  # exp(-exp(6)) is zero in float64
_LOW = -10.0  # below it two terms of the series of log softplus are exact to 1e-9
_SERIES_FROM = 16.0


def log_one_minus_exp(log_u: Tensor) -> Tensor:
    """log(1 - exp(-u)) from log u; -inf at u = 0, 0 at u = inf, any shape."""
    small = log_u < _TINY_LOG
    u = log_u.clamp(max=_TINY_LOG).exp()
    series = log_u - u / 2 + u.square() / 24
    direct = torch.log(-torch.expm1(-log_u.clamp(_TINY_LOG, _ALL_LOG).exp()))
    return torch.where(small, series, direct)


def log_softplus(x: Tensor) -> Tensor:
    """log(log(1 + exp(x))), about x far below zero and log x far above."""
    low = x < _LOW
    below = x - 0.5 * x.clamp(max=_LOW).exp()
    # torch's own softplus rounds otherwise at the end of a vector, so that a number would hang on how many there are
    small = torch.log1p(x.clamp(_LOW, 0.0).exp())
    large = x.clamp(min=0.0) + torch.log1p((-x.clamp(min=0.0)).exp())
    return torch.where(low, below, torch.log(torch.where(x > 0, large, small)))


def stirling_rest(z: Tensor) -> Tensor:
    """What lgamma(z) has beyond (z - ½) log z - z + ½ log 2π, for z > 0 (Whittaker and Watson 1927, §12.33)."""
    large = z > _SERIES_FROM
    near = z.clamp(max=_SERIES_FROM)
    exact = torch.lgamma(near) - (near - 0.5) * torch.log(near) + near - HALF_LOG_2PI
    inverse = 1 / z.clamp(min=_SERIES_FROM)
    square = inverse.square()
    series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680)))
    return torch.where(large, series, exact)


def log_negative_binomial(count: Tensor, log_mean: Tensor, log_shape: Tensor) -> Tensor:
    """Log probability of a count ≥ 0 under the negative binomial with mean m and variance m + m²/shape.

    Written in deviations from the saddle point (Loader 2000, "Fast and accurate computation of binomial
    probabilities"), so that no large numbers cancel. Arguments broadcast.
    """
    none = count == 0
    k = torch.where(none, torch.ones_like(count), count)
    shape, mean = log_shape.exp(), log_mean.exp()
    log_k, log_sum = k.log(), torch.logaddexp(log_shape, k.log())
    up = _log_ratio((k - mean) / (shape + mean), log_sum - torch.logaddexp(log_shape, log_mean))
    deviation = shape * up + k * (up + _log_ratio((mean - k) / k, log_mean - log_k))
    rest = stirling_rest(shape + k) - stirling_rest(shape) - stirling_rest(k)
    some = deviation + 0.5 * (log_shape - log_sum - log_k) - HALF_LOG_2PI + rest
    return torch.where(none, -shape * functional.softplus(log_mean - log_shape), some)


def _log_ratio(excess: Tensor, difference: Tensor) -> Tensor:
    """log(x/y), from (x - y)/y where that is small and from `difference` of the logs where it is not."""
    near = excess.abs() < 0.5
    return torch.where(near, torch.log1p(torch.where(near, excess, torch.zeros_like(excess))), difference)
