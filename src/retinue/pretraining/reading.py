"""A base as a pretrained network reads it at a cutoff: units, season, summary, a first law, and its customers' readouts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import torch
from numpy.typing import NDArray

from retinue.events.timeline import microseconds
from retinue.models.amortised import AmortisedLaw
from retinue.models.btyd import Histories, ParetoNBD
from retinue.models.clocks import ANCHOR_DAYS, anchor_of
from retinue.models.sequence_losses import LEAST_VALUE
from retinue.schema import AMOUNT, KNOWN_EVENT_TYPES
from retinue.sequences.base_sums import SUMMARY, Sums, Worth, summary_of
from retinue.sequences.behaviour import NAMES, Behaviour
from retinue.sequences.readouts import Readouts
from retinue.sequences.units import Units
from retinue.sequences.vocabulary import Vocabulary

FIRST_DAYS = (30, 365)  # horizons at which the network is told what the law says
FIRST = (
    "first_log_orders",
    "first_log_orders_later",
    "first_log_odds",
    "first_log_odds_later",
    "first_log_value",
)
READOUT_NAMES = (*NAMES, *FIRST, *(f"base_{name}" for name in SUMMARY))
RETURNS = 0.01  # share of those whom the law holds for lost that it is wrong about
CUSTOMERS_AT_ONCE = 16_384


@dataclass(frozen=True)
class Reading:
    """What all customers of a base share at a cutoff.

    Attributes:
        cutoff: Last instant of history.
        units: Of the base.
        vocabulary: The network's, in the base's units.
        summary: (len(SUMMARY),) the base without units, NaN where too short to tell.
        law: First forecast of orders.
        worth: First forecast of their value.
    """

    cutoff: datetime
    units: Units
    vocabulary: Vocabulary
    summary: NDArray[np.float32]
    law: ParetoNBD
    worth: Worth


def prior_vocabulary(edges: tuple[float, ...]) -> Vocabulary:
    """The event types that any base may have, and amounts with these edges, in units of no base yet."""
    return Vocabulary(tuple(KNOWN_EVENT_TYPES), (), (), (str(AMOUNT),), (edges,), 1.0, 1.0)


def in_units(vocabulary: Vocabulary, units: Units) -> Vocabulary:
    """The vocabulary in the units of a base."""
    return replace(vocabulary, order_value=units.order_value, gap_days=units.gap_days)


def law_inputs(sums: Sums, summary: NDArray[np.float32]) -> torch.Tensor:
    """What the amortised law is told of a base, (D,)."""
    shares = np.sqrt(sums.grid / max(float(sums.customers), 1.0))
    return torch.from_numpy(np.concatenate([summary, shares]).astype(np.float32))


def reading_of(
    law: AmortisedLaw, vocabulary: Vocabulary, sums: Sums, units: Units, cutoff: datetime
) -> Reading:
    """Reads a base from sums over all its customers; the vocabulary is that of the prior."""
    summary = summary_of(sums, units)
    found = law.law(law_inputs(sums, summary), units.span)
    return Reading(cutoff, units, in_units(vocabulary, units), summary, found, Worth.of(sums))


def readouts_of(reading: Reading, behaviour: Behaviour, end: datetime) -> Readouts:
    """The customers as the network is told of them.

    Args:
        reading: of their base.
        behaviour: of the customers asked about.
        end: where targets end; the cutoff where there are none.
    """
    parts = [
        _part(reading, behaviour, slice(begin, begin + CUSTOMERS_AT_ONCE))
        for begin in range(0, max(len(behaviour.customer), 1), CUSTOMERS_AT_ONCE)
    ]
    features, anchor = (np.concatenate(each) for each in zip(*parts, strict=True))
    cutoff = np.full(len(behaviour.customer), microseconds(reading.cutoff))
    return Readouts(behaviour.customer, cutoff, features, READOUT_NAMES, end, anchor)


def _part(
    reading: Reading, behaviour: Behaviour, rows: slice
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    columns = np.stack([behaviour.frequency[rows], behaviour.recency[rows], behaviour.age[rows]])
    distinct, place = np.unique(columns, axis=1, return_inverse=True)
    of = Histories(*(torch.from_numpy(np.ascontiguousarray(column)) for column in distinct))
    days = torch.tensor([*FIRST_DAYS, *ANCHOR_DAYS], dtype=torch.float64)
    alive = RETURNS + (1 - RETURNS) * reading.law.p_alive(of)
    some = torch.stack([alive * reading.law.p_order(of, day) for day in days]).clamp(1e-9, 1 - 1e-9)
    orders = torch.maximum(alive * reading.law.orders(of, days), some)
    known = len(FIRST_DAYS)
    value = np.log(
        np.maximum(reading.worth.own_mean(behaviour.transactions[rows], behaviour.gross[rows]), LEAST_VALUE)
    )
    clocks = anchor_of(torch.log1p(-some[known:]).T, orders[known:].T, torch.zeros(len(of.frequency))).numpy()
    anchor = clocks[place]
    anchor[:, -1] = value
    soon, later = orders[:known].log().numpy()[:, place]
    odds = torch.logit(some[:known]).numpy()[:, place]
    first = np.stack([soon, later - soon, *odds, value], axis=1)
    base = np.broadcast_to(reading.summary, (len(value), len(SUMMARY)))
    return np.concatenate([behaviour.numbers[rows], first, base], axis=1).astype(np.float32), anchor
