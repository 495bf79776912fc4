"""Log scores of the clocks, censored where the window ends; each gives one loss per row, 0 where a row says nothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from retinue.models.clocks import Clocks, log_hazard_between, log_prob_orders, log_survival
from retinue.models.log_space import HALF_LOG_2PI, log_one_minus_exp, stirling_rest
from retinue.sequences.batches import Targets

LEAST_DAY = 1e-3  # business days, for a day on which the shop is shut and an order came all the same
LEAST_VALUE = 0.02  # median orders, for orders that brought nothing: a gamma is never zero
MOST_WEIGHT = 20.0  # median orders, beyond which a window weighs no more in the share of refunds
_DEVIATION_BOUND = 6.0


def next_order_loss(clocks: Clocks, before: Tensor, until: Tensor) -> Tensor:
    """-log(S(before) - S(until)), or -log S(before) where none came in the window; (R,).

    The discrete-time survival likelihood, right-censored (Kalbfleisch and Prentice 2002, §2.4).

    Args:
        clocks: of R readouts.
        before: (R,) the order came after more than so many business days; the whole window if none came.
        until: (R,) and by so many; inf where none came.
    """
    came = torch.isfinite(until)
    end = torch.maximum(torch.where(came, until, before + 1), before + LEAST_DAY)
    waited = -log_survival(clocks, before[:, None])[:, 0]
    between = log_hazard_between(clocks, before[:, None], end[:, None])[:, 0]
    return waited - torch.where(came, log_one_minus_exp(between), torch.zeros_like(between))


def orders_loss(clocks: Clocks, horizon: Tensor, orders: Tensor) -> Tensor:
    """-log P(N(h) = orders) under the hurdle negative binomial, mean over H horizons; (R,).

    Args:
        clocks: of R readouts.
        horizon: (R, H) business days, > 0.
        orders: (R, H) whole numbers.
    """
    return -log_prob_orders(clocks, horizon, orders).mean(dim=-1)


def value_loss(clocks: Clocks, orders: Tensor, gross: Tensor) -> Tensor:
    """-log density of what n orders brought, Gamma with shape n·shape and mean n·mean, mean over H horizons; (R,).

    The number and the sum of independent gamma values are sufficient for their mean, and the sum is gamma
    too (Johnson, Kotz and Balakrishnan 1994, §17.2). Nothing is learnt where no order came; a sum below 2 %
    of the median order is read as that.

    Args:
        clocks: of R readouts.
        orders: (R, H) number of orders.
        gross: (R, H) what they brought before refunds, units of the base's median order value.
    """
    some = orders > 0
    n = torch.where(some, orders, torch.ones_like(orders))
    total = torch.where(some, gross.clamp(min=LEAST_VALUE), n)
    log_shape = clocks.value_log_shape[:, None] + n.log()
    log_share = total.log() - n.log() - clocks.value_log_mean[:, None]
    shape = log_shape.exp()
    deviation = shape * (log_share - torch.expm1(log_share))
    density = deviation + 0.5 * log_shape - HALF_LOG_2PI - stirling_rest(shape) - total.log()
    return -torch.where(some, density, torch.zeros_like(density)).mean(dim=-1)


def refund_loss(clocks: Clocks, gross: Tensor, refunds: Tensor) -> Tensor:
    """Quasi-likelihood of the share of money that comes back, in money, mean over H horizons; (R,).

    A Bernoulli log-likelihood of each unit of money (Papke and Wooldridge 1996, eq. 5), so that the fitted share
    is refunds over gross, not the mean of the customers' shares. A window weighs as its money, at most 20 median
    orders; where nothing moved it weighs nothing.

    Args:
        clocks: of R readouts.
        gross: (R, H) value of the orders, ≥ 0.
        refunds: (R, H) money paid back, ≥ 0; what exceeds the gross is read as a share of one.
    """
    money = torch.maximum(gross, refunds)
    weight = (MOST_WEIGHT / money.clamp(min=MOST_WEIGHT)).to(clocks.refund_logit.dtype)
    logit = clocks.refund_logit[:, None]
    loss = refunds * functional.softplus(-logit) + (money - refunds) * functional.softplus(logit)
    return (weight * loss).mean(dim=-1)


def next_event_loss(kind_logits: Tensor, gap_raw: Tensor, amount_raw: Tensor, targets: Targets) -> Tensor:
    """-log probability of the kind of the next event, of its log gap and of its signed log amount; (N,).

    The gap and the amount are normal; the three parts are summed, each where it is known.

    Args:
        kind_logits: (N, kinds).
        gap_raw: (N, 2) mean and raw log deviation of log1p days.
        amount_raw: (N, 2) mean and raw log deviation of the unit-free amount.
        targets: next_kind, next_gap and next_amount of the N tokens.
    """
    wide = torch.promote_types(kind_logits.dtype, torch.float32)
    known = targets.next_kind >= 0
    logs = functional.log_softmax(kind_logits.to(wide), dim=-1)
    kind = -logs.gather(1, targets.next_kind.clamp(min=0)[:, None])[:, 0]
    sure = torch.where(known, kind, torch.zeros_like(kind))
    gap = _normal_loss(gap_raw.to(wide), targets.next_gap)
    return sure + gap + _normal_loss(amount_raw.to(wide), targets.next_amount)


def _normal_loss(raw: Tensor, value: Tensor) -> Tensor:
    """-log normal density, 0 where the value is NaN; the log deviation is kept within ±6."""
    known = ~torch.isnan(value)
    log_deviation = _DEVIATION_BOUND * torch.tanh(raw[:, 1] / _DEVIATION_BOUND)
    away = (torch.where(known, value, torch.zeros_like(value)) - raw[:, 0]) * torch.exp(-log_deviation)
    loss = 0.5 * away.square() + log_deviation + HALF_LOG_2PI
    return torch.where(known, loss, torch.zeros_like(loss))
