"""Saturating clocks: one coherent distribution of the next order, their number and value, at any horizon.

Times are in business days after the cutoff, money in units of the base's median order value. With weights a, r ≥ 0
and φ_j(h) = 1 - exp(-h/τ_j):

    A(h) = Σ a_j φ_j(h)                     S(h) = exp(-A(h)) = P(no order within h)
    B(h) = Σ r_j φ_j(h) · k(A(h))           k(A) = 1/(1 - exp(-A)) - 1/A, rising from ½ to 1
    N(h) | N(h) ≥ 1  =  1 + NegBinomial(mean B(h), shape exp(shape_log) · (1 + B(h))^(2·shape_power))

k is what makes a Poisson process, of any fading intensity, the case r = a; its shape grows from 3 with the square of B,
that of customers who order at gamma-distributed rates is constant. A horizon h is a tensor that broadcasts
to (R, H): (), (H,), (1, H) or (R, H); results are (R, H).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retinue.models.btyd import LONGEST_WAIT_DAYS
from retinue.models.log_space import log_negative_binomial, log_one_minus_exp, log_softplus

# Eleven from 3 days to ten years, and a century: who orders at a constant rate must not seem to fade within two years.
TIMESCALES = (*(3.0 * (3_650.0 / 3.0) ** (j / 10) for j in range(11)), 36_500.0)
J = len(TIMESCALES)
WIDTH = 2 * J + 4
ANCHOR = 2 * J + 1
ANCHOR_DAYS = tuple(
    round(days) for days in TIMESCALES[:-1]
)  # where another forecast is read, one for each clock but the last
_PER_DAYS = 10.0  # softplus of a raw weight is in orders per 10 days where the clock is slower than that
_BOUND = 12.0  # on the logs of shapes and values
_TILT = 6.0  # on the logs of what a network makes of an anchor's weights
_NEAR = 0.3  # below it the series of k is exact to 1e-12
_BISECTIONS = 60
_MOST_MASS = 700.0  # whoever stays away with a chance of e^-700 surely orders
_LEAST_STEP = 1e-3
_ROUNDS = 300
_PACE = 1.9  # below 2 the updates still converge (Lange 1995)
_CACHED = 2**16  # numbers that a core's cache holds
_ALIKE = (
    48  # columns of a product that are added up alike, wherever they stand, are in whole blocks of so many
)
_GRID_DAYS = tuple(36_500.0 ** (i / 160) for i in range(161))  # 1 day to a century


@dataclass(frozen=True)
class Clocks:
    """The forecasts of R readouts, as the logs of their parameters.

    Attributes:
        a_log: (R, J) log weights of the hazard of the next order.
        r_log: (R, J) log weights of the orders beyond it.
        shape_log: (R,) log shape of the number of orders beyond the first, where none is expected.
        shape_power: () how that shape grows with their mean: not at all at 0, as its square at 1.
        value_log_mean: (R,) log mean value of an order before refunds.
        value_log_shape: (R,) log shape of the gamma distribution of that value.
        refund_logit: (R,) log odds of the share of value that comes back.
    """

    a_log: Tensor
    r_log: Tensor
    shape_log: Tensor
    shape_power: Tensor
    value_log_mean: Tensor
    value_log_shape: Tensor
    refund_logit: Tensor


def clocks_from(raw: Tensor, power_raw: Tensor, anchor: Tensor | None = None, free: int = J) -> Clocks:
    """The clocks of a network's outputs, of any size and sign; half precision becomes float32.

    Args:
        raw: (R, WIDTH), in turn a (J), r (J), shape, mean value, shape of value, refunds.
        power_raw: () log odds of shape_power.
        anchor: (R, ANCHOR) of `anchor_of`: log weights a and r, log mean value, which the outputs then move; None
            takes the outputs for the weights themselves.
        free: of the J clocks of an anchor, from the fastest on, each of these is moved by its own output, and all
            slower ones by that of the last: what was seen cannot tell them apart, the anchor does.
    """
    wide = torch.promote_types(raw.dtype, torch.float32)
    raw = raw.to(wide)
    rest = _BOUND * torch.tanh(raw[:, 2 * J :] / _BOUND)
    shape, mean, value_shape, refund = rest.unbind(-1)
    power = torch.sigmoid(power_raw.to(wide))
    if anchor is None:
        weights = log_softplus(raw[:, : 2 * J]) + _scales(raw).repeat(2).log()
    else:
        moved_by = torch.arange(J, device=raw.device).clamp(max=free - 1)
        tilt = raw.index_select(1, torch.cat([moved_by, J + moved_by]))
        weights = anchor[:, : 2 * J].to(wide) + _TILT * torch.tanh(tilt / _TILT)
        mean = mean + anchor[:, 2 * J].to(wide)
    return Clocks(weights[:, :J], weights[:, J:], shape, power, mean, value_shape, refund)


@torch.no_grad()
def anchor_of(log_survival: Tensor, orders: Tensor, log_value: Tensor) -> Tensor:
    """The clocks nearest to another forecast, (R, ANCHOR) float32: log weights a and r, log mean value.

    The weights minimise the relative Kullback-Leibler divergence from A and Q at `ANCHOR_DAYS`, by its
    multiplicative updates (Lee and Seung 2001, theorem 2).

    Args:
        log_survival: (R, J - 1) log P(no order within so many business days), on the host as all three.
        orders: (R, J - 1) orders expected within them.
        log_value: (R,) log mean value of an order, median orders.
    """
    mass = (-log_survival).clamp(min=1e-12, max=_MOST_MASS)
    some = -torch.expm1(-mass)
    later = (orders / some - 1).clamp(min=1e-12) / _log_later_share(mass).exp()
    days = torch.tensor(ANCHOR_DAYS, dtype=mass.dtype, device=mass.device)
    phase = _log_phase(days, mass).exp()  # (J - 1, J)
    logs = [_nearest_weights(each, phase).log() for each in (mass, later)]
    return torch.cat([*logs, log_value[:, None]], 1).float()


def _nearest_weights(wanted: Tensor, phase: Tensor) -> Tensor:
    """Weights ≥ 0, (R, J), whose sums over the clocks are near what is wanted, (R, J - 1), in ratio."""
    # a customer a column: products and powers then take half the time
    rows = len(wanted)
    wanted = torch.nn.functional.pad(wanted.T, (0, -rows % _ALIKE), value=1.0).contiguous()
    steps = wanted.diff(dim=0, prepend=torch.zeros_like(wanted[:1]))
    steps = torch.maximum(steps, _LEAST_STEP * wanted)
    # a start near the end for who orders on at one rate as for who stops; the slowest clock is one that hardly fades
    weights = torch.cat([steps, steps[-1:] * (TIMESCALES[-1] / TIMESCALES[-2])])
    back = phase.T.contiguous()
    share, said, ratio = back @ (1 / wanted), torch.empty_like(wanted), torch.empty_like(weights)
    for _ in range(_ROUNDS):
        # each horizon weighs as the inverse of what is wanted there, so that it is ratios that count
        torch.mm(phase, weights, out=said)
        torch.mm(back, said.reciprocal_(), out=ratio)
        ratio.div_(share)
        np.power(ratio.numpy(), _PACE, out=ratio.numpy())  # in half the time of torch's
        weights.mul_(ratio)
    return weights[:, :rows].T.clamp(min=1e-30)


def log_hazard_mass(clocks: Clocks, h: Tensor) -> Tensor:
    """Log A(h), -inf at h = 0."""
    return _log_mass(clocks.a_log, h)


def log_survival(clocks: Clocks, h: Tensor) -> Tensor:
    """Log P(no order within h)."""
    return -log_hazard_mass(clocks, h).exp()


def survival(clocks: Clocks, h: Tensor) -> Tensor:
    """P(no order within h): 1 at h = 0, falling in h."""
    return log_survival(clocks, h).exp()


def log_order_chance(clocks: Clocks, h: Tensor) -> Tensor:
    """Log P(an order within h), -inf at h = 0; exact where the chance is tiny."""
    return _where_positive(h, log_one_minus_exp(log_hazard_mass(clocks, _or_one(h))), -math.inf)


def log_hazard_between(clocks: Clocks, before: Tensor, until: Tensor) -> Tensor:
    """log(A(until) - A(before)) without cancellation, for until > before ≥ 0; both broadcast to (R, H)."""
    phase = _log_phase(until - before, clocks.a_log) - before[..., None] / _timescales(clocks.a_log)
    return torch.logsumexp(clocks.a_log[:, None, :] + phase, dim=-1)


def beyond(clocks: Clocks, h: Tensor) -> Tensor:
    """B(h), the expected orders beyond the first, given one; 0 at h = 0, rising in h."""
    return _log_beyond(clocks, h).exp()


def expected_orders(clocks: Clocks, h: Tensor) -> Tensor:
    """E[N(h)] = (1 - S)(1 + B): 0 at h = 0, rising in h, never below 1 - S."""
    return log_order_chance(clocks, h).exp() * (1 + beyond(clocks, h))


def orders_shape(clocks: Clocks, h: Tensor) -> Tensor:
    """Shape of the negative binomial of the orders beyond the first; without a slope in their mean."""
    return _log_shape(clocks, beyond(clocks, h)).exp()


def log_prob_orders(clocks: Clocks, h: Tensor, n: Tensor) -> Tensor:
    """Log P(N(h) = n) of whole n ≥ 0 that broadcasts to (R, H); of n = 0 it is log_survival exactly."""
    none = n == 0
    more = torch.where(none, torch.zeros_like(n), n - 1).to(clocks.a_log.dtype)
    log_beyond = _log_beyond(clocks, _or_one(h))
    count = log_negative_binomial(more, log_beyond, _log_shape(clocks, log_beyond.exp()))
    some = _where_positive(h, log_order_chance(clocks, _or_one(h)) + count, -math.inf)
    return torch.where(none, log_survival(clocks, h), some)


def discounted_orders(clocks: Clocks, h: Tensor, daily_rate: float) -> Tensor:
    """E[Σ exp(-rate·t) over the orders at t ≤ h]: rises in h, never above expected_orders; computed in float64.

    A sum of E[N] over the cells of a fixed grid, each discounted as at its middle, so that it rises by
    construction; at 10 % a year it is within 0.05 % of the integral at a year, within 0.5 % at ten.

    Args:
        clocks: of R readouts.
        h: business days, broadcasts to (R, H).
        daily_rate: continuous discount rate per business day, ≥ 0.
    """
    double = _as_double(clocks)
    edges = torch.tensor((0.0, *_GRID_DAYS), dtype=torch.float64, device=h.device)
    edges = edges[: int((edges <= h.max()).sum()) + 1]  # no cell beyond the longest horizon is read
    middles = torch.cat([(edges[1:] + edges[:-1]) / 2, edges[-1:]])
    factors = torch.exp(-daily_rate * middles)
    at_edges = expected_orders(double, edges)
    steps = at_edges.diff(dim=-1) * factors[:-1]
    sums = torch.nn.functional.pad(steps.cumsum(-1), (1, 0))
    now = expected_orders(double, h.double())
    cell = torch.searchsorted(edges, h.double().expand(now.shape).contiguous(), right=True) - 1
    last = (now - at_edges.gather(1, cell)).clamp(min=0.0)
    return (sums.gather(1, cell) + last * factors[cell]).to(clocks.a_log.dtype)


def value_mean(clocks: Clocks) -> Tensor:
    """Mean value of an order before refunds; (R,), units of the base's median order value."""
    return clocks.value_log_mean.exp()


def value_variance(clocks: Clocks) -> Tensor:
    """Variance of the value of an order; (R,)."""
    return (2 * clocks.value_log_mean - clocks.value_log_shape).exp()


def refund_share(clocks: Clocks) -> Tensor:
    """Share of the value of orders that comes back; (R,), in (0, 1)."""
    return torch.sigmoid(clocks.refund_logit)


def expected_spend(clocks: Clocks, h: Tensor) -> Tensor:
    """Expected spend net of refunds; (R, H), units of the base's median order value."""
    net = value_mean(clocks) * torch.sigmoid(-clocks.refund_logit)
    return expected_orders(clocks, h) * net[:, None]


@torch.no_grad()
def median_wait(clocks: Clocks) -> Tensor:
    """Business days until an order is as likely as not; (R,), NaN where that is more than ten years."""
    double = _as_double(clocks)
    low = torch.zeros_like(double.shape_log)[:, None]
    high = torch.full_like(low, LONGEST_WAIT_DAYS)
    weights, paces = double.a_log.exp(), -1 / _timescales(double.a_log)

    def is_early(day: Tensor) -> Tensor:
        return (weights * torch.expm1(day * paces)).sum(1, keepdim=True) > -math.log(2)

    never = is_early(high)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        early = is_early(middle)
        low, high = torch.where(early, middle, low), torch.where(early, high, middle)
    wait = torch.where(never, torch.full_like(high, torch.nan), high)[:, 0]
    return wait.to(clocks.a_log.dtype)


def neutral_raw(
    orders_per_day: float,
    one_time_share: float,
    value_mean: float = 1.0,
    value_shape: float = 1.0,
    refund_share: float = 0.02,
) -> Tensor:
    """Raw outputs that say of every customer what is true of the base on average; (WIDTH,), float32.

    A share of one_time_share never returns, the others order at one rate: E[N(h)] = orders_per_day · h over the
    first two years.

    Args:
        orders_per_day: orders per customer seen so far and business day, > 0.
        one_time_share: customers who never order again; read as within [0.01, 0.95].
        value_mean: of an order, units of the base's median order value, > 0.
        value_shape: of the gamma distribution of that value, > 0.
        refund_share: share of the value that comes back; read as within [0.001, 0.9].
    """
    gone = min(max(one_time_share, 0.01), 0.95)
    weights = _neutral_weights(orders_per_day, gone)
    scaled = (weights - _scales(weights).repeat(2).log()).exp()
    raw = scaled + log_one_minus_exp(scaled.log())
    back = min(max(refund_share, 0.001), 0.9)
    rest = (0.0, math.log(value_mean), math.log(value_shape), math.log(back / (1 - back)))
    bounded = [_BOUND * math.atanh(min(max(x / _BOUND, -0.9), 0.9)) for x in rest]
    return torch.cat([raw, torch.tensor(bounded, dtype=torch.float64)]).float()


@torch.enable_grad()
def _neutral_weights(orders_per_day: float, gone: float) -> Tensor:
    """Log weights a and r, (2J,), by least squares on log A and log E[N]; a small penalty keeps all clocks going."""
    days = torch.logspace(0.0, math.log10(730.0), 24, dtype=torch.float64)
    stay = (1 - gone) * -torch.expm1(-days * orders_per_day / (1 - gone))
    mass, orders = (-torch.log1p(-stay)).log(), (days * orders_per_day).log()
    start = torch.log(orders_per_day * _timescales(days).clamp(max=365.0) / J).repeat(2)
    weights = start.clone().requires_grad_()
    zero = torch.zeros(1, dtype=torch.float64)
    search = torch.optim.LBFGS([weights], max_iter=120, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        clocks = Clocks(weights[None, :J], weights[None, J:], zero, zero[0], zero, zero, zero)
        said = log_hazard_mass(clocks, days), expected_orders(clocks, days).log()
        penalty = 1e-4 * (weights - start).square().mean()
        loss = (said[0] - mass).square().mean() + (said[1] - orders).square().mean() + penalty
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    search.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach()


def _as_double(clocks: Clocks) -> Clocks:
    return Clocks(**{name: tensor.double() for name, tensor in vars(clocks).items()})


def _timescales(like: Tensor) -> Tensor:
    return torch.tensor(TIMESCALES, dtype=like.dtype, device=like.device)


def _scales(like: Tensor) -> Tensor:
    return (_timescales(like) / _PER_DAYS).clamp(min=1.0)


def _or_one(h: Tensor) -> Tensor:
    return torch.where(h > 0, h, torch.ones_like(h))


def _where_positive(h: Tensor, value: Tensor, otherwise: float) -> Tensor:
    return torch.where(h > 0, value, torch.full_like(value, otherwise))


def _log_phase(h: Tensor, like: Tensor) -> Tensor:
    """Log φ_j(h), (..., J), of h > 0."""
    return log_one_minus_exp(h.to(like.dtype).log()[..., None] - _timescales(like).log())


def _log_mass(weights_log: Tensor, h: Tensor) -> Tensor:
    """Log Σ w_j φ_j(h), (R, H), of log weights (R, J); -inf, and no gradient, at h = 0."""
    phase = _log_phase(_or_one(h), weights_log)
    if phase.ndim < 3 or len(phase) == 1:
        sums = _log_sums(weights_log, phase.reshape(-1, J))
    else:
        sums = torch.logsumexp(weights_log[:, None, :] + phase, dim=-1)
    return _where_positive(h, sums, -math.inf)


def _log_sums(weights_log: Tensor, phase_log: Tensor) -> Tensor:
    """Log Σ w_j φ_j, (R, H), where all rows (R, J) are asked at the same horizons (H, J): few exponentials do.

    As a matrix product it would be sooner done, but a forecast's last bits would follow from the other horizons.
    """
    most = weights_log.detach().amax(1, keepdim=True)
    phase = phase_log.exp()
    rows = max(1, _CACHED // max(1, phase.numel()))
    parts = [(some[:, None] * phase).sum(-1) for some in torch.split((weights_log - most).exp(), rows)]
    return most + torch.cat(parts).log()


def _log_beyond(clocks: Clocks, h: Tensor) -> Tensor:
    some = _or_one(h)
    mass = _log_mass(clocks.a_log, some).clamp(max=30.0).exp()
    value = _log_mass(clocks.r_log, some) + _log_later_share(mass)
    return _where_positive(h, value, -math.inf)


def _log_shape(clocks: Clocks, orders_beyond: Tensor) -> Tensor:
    # With no slope through the shape, the score of the mean is zero at the true mean whatever the shape (Gourieroux,
    # Monfort and Trognon 1984): a wrong shape then biases neither S nor E[N].
    return clocks.shape_log[:, None] + 2 * clocks.shape_power * torch.log1p(orders_beyond.detach())


def _log_later_share(mass: Tensor) -> Tensor:
    """Log k(A), the share of a Poisson process' A orders that is still to come once the first is there."""
    near = mass < _NEAR
    s = mass.clamp(max=_NEAR)
    square = s.square()
    odd = 1 / 12 - square * (1 / 720 - square * (1 / 30_240 - square / 1_209_600))
    far = mass.clamp(min=_NEAR)
    return torch.where(near, 0.5 + s * odd, -1 / torch.expm1(-far) - 1 / far).log()
