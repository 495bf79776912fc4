"""Buy-till-you-die models: what a history of (frequency, recency, T) says about orders to come. All times in days."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from retinue.models.fitting import Sample, maximise
from retinue.models.integrals import beta_nodes, exp_ratio, log_power_integral, unit_nodes
from retinue.options import Rung

BETA_NODES = 48
CELL_NODES = 4
SHAPES = (0.02, 1e6)
LONGEST_WAIT_DAYS = 3_650.0
MEDIAN_STEPS = 25
FIT_ROWS = {Rung.bg_nbd: 65_536, Rung.mbg_nbd: 65_536, Rung.pareto_nbd: 16_384}


@dataclass(frozen=True)
class Histories:
    """frequency, recency_days, T_days of customers who have ordered; each (customers,) float64, 0 ≤ recency ≤ T."""

    frequency: Tensor
    recency_days: Tensor
    T_days: Tensor

    def __post_init__(self) -> None:
        assert self.frequency.shape == self.recency_days.shape == self.T_days.shape
        assert self.frequency.dtype == self.recency_days.dtype == self.T_days.dtype == torch.float64


def _beta_geometric(first: float, parameters: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-likelihood terms of silence alive, of silence dead, and whether death is possible; each (rows,)."""
    r, alpha, a, b = parameters
    x, t_x, T = columns
    k = r + x
    can_die = x + first > 0
    tries = torch.where(can_die, x + first, torch.ones_like(x))
    start = torch.lgamma(k) - torch.lgamma(r) + r * torch.log(alpha)
    survived = (
        torch.lgamma(a + b) - torch.lgamma(b) + torch.lgamma(b + x + first) - torch.lgamma(a + b + x + first)
    )
    odds = torch.log(a) - torch.log(b + tries - 1)
    alive = start + survived - k * torch.log(alpha + T)
    dead = start + survived + odds - k * torch.log(alpha + t_x)
    return alive, dead, can_die


def _silent_either_way(alive: Tensor, dead: Tensor, can_die: Tensor) -> Tensor:
    return torch.where(can_die, torch.logaddexp(alive, torch.where(can_die, dead, alive)), alive)


def bg_nbd_log_likelihood(parameters: Tensor, columns: Tensor) -> Tensor:
    """BG/NBD log-likelihood per customer (Fader, Hardie and Lee 2005, eq. 6).

    Args:
        parameters: r, alpha, a, b; alpha in the unit of the times.
        columns: (3, rows): x, t_x, T.
    """
    return _silent_either_way(*_beta_geometric(0.0, parameters, columns))


def mbg_nbd_log_likelihood(parameters: Tensor, columns: Tensor) -> Tensor:
    """MBG/NBD log-likelihood per customer: dropout also right after the first order (Batislam et al. 2007, eq. 3).

    Args:
        parameters: r, alpha, a, b; alpha in the unit of the times.
        columns: (3, rows): x, t_x, T.
    """
    return _silent_either_way(*_beta_geometric(1.0, parameters, columns))


def _pareto(parameters: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r, alpha, s, beta = parameters
    x, t_x, T = columns
    k = r + x
    could_die = t_x < T
    width = torch.where(could_die, T - t_x, torch.ones_like(T))
    start = torch.lgamma(k) - torch.lgamma(r) + r * torch.log(alpha) + s * torch.log(beta)
    alive = start - k * torch.log(alpha + T) - s * torch.log(beta + T)
    dead = start + torch.log(s) + log_power_integral(k, s + 1, alpha + t_x, beta + t_x, width)
    return alive, dead, could_die


def pareto_nbd_log_likelihood(parameters: Tensor, columns: Tensor) -> Tensor:
    """Pareto/NBD log-likelihood per customer, the time of death integrated out (Fader and Hardie 2005).

    Args:
        parameters: r, alpha, s, beta; alpha and beta in the unit of the times.
        columns: (3, rows): x, t_x, T.
    """
    return _silent_either_way(*_pareto(parameters, columns))


@dataclass(frozen=True)
class BetaGeometricNBD:
    """A fitted BG/NBD (`dies_at_first` False) or MBG/NBD (True).

    In BG/NBD a customer can die only at a repeat order, so it holds every one-time buyer to be alive for
    ever: a limit of that rung, which MBG/NBD and Pareto/NBD do not share.
    """

    r: float
    alpha_days: float
    a: float
    b: float
    dies_at_first: bool

    @property
    def parameters(self) -> Tensor:
        """r, alpha_days, a, b."""
        return torch.tensor([self.r, self.alpha_days, self.a, self.b], dtype=torch.float64)

    def log_likelihood(self, of: Histories) -> Tensor:
        """Per customer, times in days."""
        function = mbg_nbd_log_likelihood if self.dies_at_first else bg_nbd_log_likelihood
        return function(self.parameters, _columns(of))

    def p_alive(self, of: Histories) -> Tensor:
        """P(not dead at T)."""
        return _p_alive(*_beta_geometric(float(self.dies_at_first), self.parameters, _columns(of)))

    def p_order(self, of: Histories, horizon_days: Tensor) -> Tensor:
        """P(an order within the horizon | alive at T): only the waiting time to it matters."""
        return -torch.expm1(
            -(self.r + of.frequency) * torch.log1p(horizon_days / (self.alpha_days + of.T_days))
        )

    def orders(self, of: Histories, horizon_days: Tensor) -> Tensor:
        """E[orders within each horizon | alive at T]; horizons (h,) -> (h, customers).

        With λ ~ Gamma(r + x, α + T) and p ~ Beta, orders come at rate λ exp(-λ p t): the mean over λ is
        closed, the one over p a Gauss–Jacobi sum, free of the pole of the hypergeometric form (Fader, Hardie
        and Lee 2005, eq. 10) at a = 1.
        """
        p, weight, k, reach = self._dropout_nodes(of)
        return torch.stack(
            [(weight * -torch.expm1(-k * torch.log1p(p * (h * reach))) / p).sum(1) for h in horizon_days]
        )

    def order_pairs(self, of: Histories, horizon_days: Tensor) -> Tensor:
        """E[N(N - 1) | alive at T] for each horizon; horizons (h,) -> (h, customers).

        2 ∫ t E[λ² (1 - p) exp(-λ p t)] dt, the integral over t in closed form for each p.
        """
        p, weight, k, reach = self._dropout_nodes(of)
        pairs = []
        for h in horizon_days:
            v = p * (h * reach)
            closed = -torch.expm1(torch.log1p((k + 1) * v) - (k + 1) * torch.log1p(v))
            series = k * (k + 1) * v**2 * (0.5 - (k + 2) * v / 3 + (k + 2) * (k + 3) * v**2 / 8)
            area = torch.where((k + 2) * v < 1e-3, series, closed) / p**2
            pairs.append(2 * (weight * (1 - p) * area).sum(1))
        return torch.stack(pairs)

    def _dropout_nodes(self, of: Histories) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Points and weights of the dropout probability (customers, nodes); k and 1/(α + T), (customers, 1)."""
        counts, which = torch.unique(of.frequency, return_inverse=True)
        ends = self.b + counts + float(self.dies_at_first)
        points, weights = beta_nodes(torch.full_like(ends, self.a), ends, BETA_NODES)
        k = (self.r + of.frequency)[:, None]
        return points[which], weights[which], k, 1 / (self.alpha_days + of.T_days)[:, None]

    def next_order_days(self, of: Histories) -> Tensor:
        """Median wait, NaN where an order within ten years is less likely than not."""
        alive = self.p_alive(of)
        return _within_reach(_immortal_median(alive, self.r + of.frequency, self.alpha_days + of.T_days))


@dataclass(frozen=True)
class ParetoNBD:
    """A fitted Pareto/NBD (Schmittlein, Morrison and Colombo 1987)."""

    r: float
    alpha_days: float
    s: float
    beta_days: float

    @property
    def parameters(self) -> Tensor:
        """r, alpha_days, s, beta_days."""
        return torch.tensor([self.r, self.alpha_days, self.s, self.beta_days], dtype=torch.float64)

    def log_likelihood(self, of: Histories) -> Tensor:
        """Per customer, times in days."""
        return pareto_nbd_log_likelihood(self.parameters, _columns(of))

    def p_alive(self, of: Histories) -> Tensor:
        """P(not dead at T)."""
        return _p_alive(*_pareto(self.parameters, _columns(of)))

    def p_order(self, of: Histories, horizon_days: Tensor) -> Tensor:
        """P(an order within the horizon | alive at T): ∫ E[λ exp(-(λ + μ) t)] dt, one positive integral."""
        k = self.r + of.frequency
        alpha, beta = self.alpha_days + of.T_days, self.beta_days + of.T_days
        s = torch.tensor(self.s, dtype=torch.float64)
        width = horizon_days.expand_as(k)
        logs = torch.log(k) + k * torch.log(alpha) + s * torch.log(beta)
        return torch.exp(logs + log_power_integral(k + 1, s, alpha, beta, width)).clamp(max=1.0)

    def orders(self, of: Histories, horizon_days: Tensor) -> Tensor:
        """E[orders within each horizon | alive at T] (Fader and Hardie 2005); horizons (h,) -> (h, customers)."""
        beta = self.beta_days + of.T_days
        rate = (self.r + of.frequency) / (self.alpha_days + of.T_days)
        ages = torch.log1p(horizon_days[:, None] / beta)
        return rate * beta * ages * exp_ratio((1 - self.s) * ages)

    def order_pairs(self, of: Histories, horizon_days: Tensor) -> Tensor:
        """E[N(N - 1) | alive at T] for each horizon: 2 ∫ t E[λ² exp(-μ t)] dt; horizons (h,) -> (h, customers)."""
        k, beta = self.r + of.frequency, self.beta_days + of.T_days
        ages = torch.log1p(horizon_days[:, None] / beta)
        area = beta**2 * ages * (exp_ratio((2 - self.s) * ages) - exp_ratio((1 - self.s) * ages))
        return 2 * k * (k + 1) / (self.alpha_days + of.T_days) ** 2 * area

    def next_order_days(self, of: Histories) -> Tensor:
        """Median wait, NaN where an order within ten years is less likely than not.

        Newton on a concave function from below: the median of a customer who cannot die is a lower bound.
        """
        alive = self.p_alive(of)
        days = _within_reach(_immortal_median(alive, self.r + of.frequency, self.alpha_days + of.T_days))
        left = torch.nonzero(~torch.isnan(days))[:, 0]
        for _ in range(MEDIAN_STEPS):
            if not len(left):
                break
            step = self._median_step(_rows(of, left), alive[left], days[left])
            days[left] = torch.minimum(days[left] + step, torch.full_like(step, 2 * LONGEST_WAIT_DAYS))
            left = left[step > 1e-12 * days[left]]
        return _within_reach(days)

    def _median_step(self, of: Histories, alive: Tensor, days: Tensor) -> Tensor:
        k, alpha, beta = self.r + of.frequency, self.alpha_days + of.T_days, self.beta_days + of.T_days
        logs = torch.log(k / alpha) - (k + 1) * torch.log1p(days / alpha) - self.s * torch.log1p(days / beta)
        short = 0.5 - alive * self.p_order(of, days)
        return (short / (alive * torch.exp(logs))).clamp(min=0.0)


Btyd = BetaGeometricNBD | ParetoNBD


class OrderModel(Protocol):
    """What `predict` needs of a model of orders; times in days, horizons (h,)."""

    def p_alive(self, of: Histories) -> Tensor:
        """P(not lost at T), (customers,)."""
        ...

    def p_order(self, of: Histories, horizon_days: Tensor) -> Tensor:
        """P(an order within the horizon | alive at T), (customers,)."""
        ...

    def orders(self, of: Histories, horizon_days: Tensor) -> Tensor:
        """E[orders within each horizon | alive at T], (h, customers)."""
        ...

    def order_pairs(self, of: Histories, horizon_days: Tensor) -> Tensor:
        """E[N(N - 1) | alive at T] for each horizon, (h, customers)."""
        ...

    def next_order_days(self, of: Histories) -> Tensor:
        """Median wait, (customers,)."""
        ...


def _rows(of: Histories, which: Tensor) -> Histories:
    return Histories(of.frequency[which], of.recency_days[which], of.T_days[which])


def _columns(of: Histories) -> Tensor:
    return torch.stack([of.frequency, of.recency_days, of.T_days])


def _p_alive(alive: Tensor, dead: Tensor, can_die: Tensor) -> Tensor:
    return torch.where(can_die, torch.sigmoid(alive - dead), torch.ones_like(alive))


def _immortal_median(alive: Tensor, k: Tensor, scale: Tensor) -> Tensor:
    """Days h with alive·(1 - (scale/(scale + h))^k) = ½; NaN where alive ≤ ½."""
    left = torch.where(alive > 0.5, 1 - 0.5 / alive, torch.full_like(alive, torch.nan))
    return scale * torch.expm1(-torch.log(left) / k)


def _within_reach(days: Tensor) -> Tensor:
    return torch.where(days <= LONGEST_WAIT_DAYS, days, torch.full_like(days, torch.nan))


def fit(rung: Rung, sample: Sample, limit: int | None = None) -> Btyd:
    """The model of one rung at its (weakly penalised) maximum likelihood.

    Args:
        rung: bg_nbd, mbg_nbd or pareto_nbd.
        sample: distinct x, t_x days, T days in a total order, with counts; any number of customers from one
            on.
        limit: rows used; more are thinned evenly (65,536 for the two closed forms, 16,384 for Pareto/NBD).
    """
    if rung not in FIT_ROWS:
        raise ValueError(
            f"rung {rung.value} names no buy-till-you-die model; there are {', '.join(r.value for r in FIT_ROWS)}."
        )
    scale = float(sample.columns[2].max().clamp_min(1.0))
    units = torch.tensor([[1.0], [scale], [scale]], dtype=torch.float64)
    thinned = sample.thinned(limit or FIT_ROWS[rung])
    scaled = Sample(thinned.columns / units, thinned.weights)
    starts = ((-1.0, -2.0, 0.0, 1.0), (0.0, 0.0, 0.0, 0.0), (0.5, -1.0, -1.5, 1.5))
    if rung is Rung.pareto_nbd:
        r, alpha, s, beta = maximise(pareto_nbd_log_likelihood, scaled, starts).tolist()
        return ParetoNBD(r, alpha * scale, s, beta * scale)
    modified = rung is Rung.mbg_nbd
    function = mbg_nbd_log_likelihood if modified else bg_nbd_log_likelihood
    r, alpha, a, b = maximise(function, scaled, starts).tolist()
    return BetaGeometricNBD(r, alpha * scale, a, b, dies_at_first=modified)


@dataclass(frozen=True)
class OrderForecast:
    """What one model says of orders within each horizon; each (h, customers), times in days."""

    p_churn: Tensor
    expected_orders: Tensor
    discounted_orders: Tensor
    shape: Tensor


def predict(
    model: OrderModel, of: Histories, horizons_days: list[int], discount_rate_yearly: float
) -> OrderForecast:
    """P(no order), E[orders], E[discounted orders] and the count's shape, from the cutoff to each horizon.

    P(no order within h) = L(x, t_x, T + h)/L(x, t_x, T); it is computed as 1 - P(alive)·P(order | alive),
    which loses no digits.
    """
    horizons = torch.tensor(horizons_days, dtype=torch.float64)
    delta = discount_rate_yearly / 365.25
    alive = model.p_alive(of)
    some = torch.stack([alive * model.p_order(of, h) for h in horizons])
    orders = torch.maximum(alive * model.orders(of, horizons), some)
    discounted = _discounted(lambda days: alive * model.orders(of, days), horizons, delta)
    shape = _count_shape(some, orders, alive * model.order_pairs(of, horizons))
    return OrderForecast(1 - some, orders, torch.minimum(discounted, orders), shape)


def _discounted(orders: Callable[[Tensor], Tensor], horizons: Tensor, delta: float) -> Tensor:
    """∫ e^(-δt) dE[N(t)] up to each horizon; (h, customers).

    The sum over cells that grow fourfold, and the rest of the last one: each by parts, four Gauss–Legendre points,
    and held to what its first and its last day's discount allow, so that a longer horizon is never worth less.

    Args:
        orders: E[N(t)] of t days (d,); (d, customers).
        horizons: (h,), days.
        delta: continuous, per day, ≥ 0.
    """
    if not delta:
        return orders(horizons)
    points, weights = unit_nodes(CELL_NODES)

    def gain(begin: Tensor, end: Tensor, before: Tensor, until: Tensor) -> Tensor:
        days = begin + (end - begin) * points
        inside = (weights * (end - begin) * delta * torch.exp(-delta * days)) @ orders(days)
        first, last = torch.exp(-delta * begin), torch.exp(-delta * end)
        step = until - before
        return (last * until - first * before + inside).clamp(last * step, first * step)

    edges = torch.tensor([0.0, *(8.0 * 4**i for i in range(6))], dtype=torch.float64)
    edges = edges[: int((edges < horizons.max()).sum())]
    at_edges, at_horizons = orders(edges), orders(horizons)
    sums = [torch.zeros_like(at_edges[0])]
    for i in range(1, len(edges)):
        sums.append(sums[-1] + gain(edges[i - 1], edges[i], at_edges[i - 1], at_edges[i]))
    cells = (torch.searchsorted(edges, horizons) - 1).tolist()
    asked = zip(cells, horizons, at_horizons, strict=True)
    return torch.stack([sums[i] + gain(edges[i], h, at_edges[i], until) for i, h, until in asked])


def _count_shape(some: Tensor, orders: Tensor, pairs: Tensor) -> Tensor:
    """Shape of the negative binomial of N - 1 given N ≥ 1 that has the model's own mean and variance."""
    some = some.clamp_min(torch.finfo(torch.float64).tiny)
    count = orders / some
    beyond = count - 1
    excess = pairs / some + count - count**2 - beyond
    return (beyond**2 / excess.clamp_min(1e-300)).clamp(*SHAPES)
