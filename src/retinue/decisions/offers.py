"""What each action would bring and cost for each customer, and what bars it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retinue.decisions.quadrants import Quadrant
from retinue.options import ActionOptions, DecisionOptions, EffectSource
from retinue.schema import (
    CLV,
    CUSTOMER_ID,
    EXPECTED_GAIN,
    EXPECTED_ORDERS,
    EXPECTED_SPEND,
    EXPERIMENT,
    GAIN_LOWER,
    GAIN_UPPER,
    LIFECYCLE,
    NAMED_CAUSE,
    P_CHURN,
    QUADRANT,
    VALUE_AT_STAKE,
    InputError,
)
from retinue.segments.lifecycle import STAGES

Array = NDArray[np.float64]
Codes = NDArray[np.int8]

CONTACTS = "campaign_exposures_30d"
WITHDRAWN = "suppressed"
HOLDOUT_SALT = "retinue global holdout"


class Bar(Enum):
    """Why an action may not be given, the first rule that says so; in words that a decision row shows."""

    nothing = "nothing"
    consent = "no consent"
    holdout = "global holdout"
    experiment = "in a running experiment: treated by its arm"
    contacts = "contact cap"
    quadrant = "other quadrant"
    stage = "other lifecycle stage"
    cause = "other cause"
    unknown = "effect not measured"
    sleeping_dog = "sleeping dog: better left alone"
    sure_thing = "sure thing: stays anyway"
    loss_guard = "loss guard: may cost more than it saves"


BARS = tuple(Bar)


@dataclass(frozen=True)
class Offers:
    """The menu for every customer; (N, A) arrays, account currency.

    Attributes:
        names: of the actions.
        channels: that they go through.
        gain: expected incremental margin over the horizon, before the action's cost.
        lower: lower end of its 90 % interval.
        upper: upper end.
        cost: expected cost, offers to those who would have ordered anyway included.
        barred: place in `BARS` of what bars it, 0 for nothing.
        measured: (A,) whether the effect was measured, not assumed.
    """

    names: tuple[str, ...]
    channels: tuple[str, ...]
    gain: Array
    lower: Array
    upper: Array
    cost: Array
    barred: Codes
    measured: NDArray[np.bool_]

    @property
    def net(self) -> Array:
        """Gain less cost; -inf where barred."""
        return np.where(self.barred == 0, self.gain - self.cost, -np.inf)


def offers(
    customers: pl.DataFrame,
    menu: Mapping[str, ActionOptions],
    rules: DecisionOptions,
    measured: Mapping[str, pl.DataFrame] | None = None,
) -> Offers:
    """Gain, cost and bars of every action for every customer.

    An assumed effect keeps a share of those who would leave, and lifts the value of those who stay:
    gain = keeps × value_at_stake + lifts × clv. A measured one comes per customer from randomised exposures.
    cost = fixed_cost + order_share × take_up × expected value of the next order × P(order | action).

    Args:
        customers: one row each: p_churn, clv, expected_orders, expected_spend, quadrant, value_at_stake, lifecycle, and,
            where they are known, cause, campaign_exposures_30d and suppressed.
        menu: actions by name.
        rules: contact cap and holdout.
        measured: gain, gain_lower, gain_upper by customer_id for each action whose effect was measured.

    Raises:
        InputError: the menu names a quadrant or a stage that there is not.
    """
    _check(menu)
    names, count = tuple(menu), customers.height
    shape = (count, len(names))
    made = Offers(
        names, tuple(a.channel for a in menu.values()), np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape),
        np.zeros(shape, np.int8), np.array([a.effect is EffectSource.measured for a in menu.values()], dtype=np.bool_),
    )  # fmt: skip
    columns: dict[str, Array] = {
        str(name): customers[name].cast(pl.Float64).fill_null(0.0).to_numpy()
        for name in (P_CHURN, CLV, EXPECTED_ORDERS, EXPECTED_SPEND, VALUE_AT_STAKE)
    }
    orders, spend = columns[EXPECTED_ORDERS], columns[EXPECTED_SPEND]
    each = np.divide(spend, orders, where=orders > 0, out=np.zeros(count))
    known = measured or {}
    for place, (name, action) in enumerate(menu.items()):
        gains = _gains(name, action, customers, columns, known)
        made.gain[:, place], made.lower[:, place], made.upper[:, place] = (np.nan_to_num(g) for g in gains)
        keeps = action.keeps if action.effect is EffectSource.assumed else 0.0
        ordering = 1 - columns[P_CHURN] * (1 - keeps)
        discount = action.order_share * action.take_up * np.maximum(each, 0.0) * ordering
        made.cost[:, place] = action.fixed_cost + discount
        made.barred[:, place] = _barred(customers, action, rules, made, place, np.isnan(gains[0]))
    return made


def in_holdout(customer_ids: pl.Series, share: float, salt: str = HOLDOUT_SALT) -> NDArray[np.bool_]:
    """Whether each customer is in the holdout: the same ones from run to run, and more of them for a larger share."""
    return drawn(customer_ids, salt) < share


def drawn(customer_ids: pl.Series, salt: str) -> Array:
    """A number in [0, 1) per customer and salt, the same on every machine (BLAKE2b of both)."""
    key = salt.encode()[:64]
    digests = (hashlib.blake2b(c.encode(), digest_size=8, key=key).digest() for c in customer_ids.to_list())
    numbers = np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)
    return (numbers >> np.uint64(11)).astype(np.float64) / 2.0**53


def _check(menu: Mapping[str, ActionOptions]) -> None:
    for name, action in menu.items():
        for field, given, known in (
            ("quadrants", action.quadrants, [q.value for q in Quadrant]),
            ("stages", action.stages, list(STAGES)),
        ):
            if strange := [one for one in given if one not in known]:
                raise InputError(
                    f"actions.menu.{name}.{field}: '{strange[0]}' is not one; there are {', '.join(known)}."
                )


def _gains(
    name: str,
    action: ActionOptions,
    customers: pl.DataFrame,
    columns: Mapping[str, Array],
    measured: Mapping[str, pl.DataFrame],
) -> tuple[Array, Array, Array]:
    """Expected gain and the ends of its interval, NaN where nothing is known; (N,) each."""
    if action.effect is EffectSource.assumed:
        stake, clv = columns[VALUE_AT_STAKE], np.maximum(columns[CLV], 0.0)
        ends = (
            (action.keeps, action.lifts),
            (action.keeps_lower, action.lifts_lower),
            (action.keeps_upper, action.lifts_upper),
        )
        mean, low, high = (keeps * stake + lifts * clv for keeps, lifts in ends)
        return mean, low, high
    if name not in measured:
        nothing = np.full(customers.height, np.nan)
        return nothing, nothing, nothing
    told = customers.select(CUSTOMER_ID).join(
        measured[name], on=CUSTOMER_ID, how="left", maintain_order="left"
    )
    mean, low, high = (
        told[column].fill_null(np.nan).to_numpy() for column in (EXPECTED_GAIN, GAIN_LOWER, GAIN_UPPER)
    )
    return mean, low, high


def _barred(
    customers: pl.DataFrame,
    action: ActionOptions,
    rules: DecisionOptions,
    made: Offers,
    place: int,
    unknown: NDArray[np.bool_],
) -> Codes:
    """Place in BARS of the first rule that bars the action; (N,)."""
    gain, low, cost = made.gain[:, place], made.lower[:, place], made.cost[:, place]
    count = customers.height
    no = np.zeros(count, np.bool_)
    withdrawn = (customers[LIFECYCLE] == "suppressed").to_numpy()
    if WITHDRAWN in customers.columns:
        withdrawn |= customers[WITHDRAWN].fill_null(0.0).to_numpy() > 0
    contacts = (
        customers[CONTACTS].fill_null(0.0).to_numpy() if CONTACTS in customers.columns else np.zeros(count)
    )
    held = in_holdout(customers[CUSTOMER_ID], rules.holdout) if rules.holdout > 0 else no
    stays = customers[P_CHURN].to_numpy() < rules.risk_threshold
    rule: dict[Bar, NDArray[np.bool_]] = {
        Bar.consent: withdrawn & action.needs_consent,
        Bar.holdout: held,
        Bar.experiment: customers[EXPERIMENT].is_not_null().to_numpy()
        if EXPERIMENT in customers.columns
        else no,
        Bar.contacts: contacts + action.contacts > rules.most_contacts,
        Bar.quadrant: ~_among(customers, QUADRANT, action.quadrants),
        Bar.stage: ~_among(customers, LIFECYCLE, action.stages),
        Bar.cause: ~_among(customers, NAMED_CAUSE, action.causes),
        Bar.unknown: unknown,
        Bar.sleeping_dog: gain < 0,
        Bar.sure_thing: (gain <= cost) & stays,
        Bar.loss_guard: (cost > low) | (gain <= cost),
    }
    barred = np.zeros(count, np.int8)
    for bar, says in reversed(rule.items()):
        barred[says] = BARS.index(bar)
    return barred


def _among(customers: pl.DataFrame, column: str, wanted: list[str]) -> NDArray[np.bool_]:
    if not wanted:
        return np.ones(customers.height, np.bool_)
    if column not in customers.columns:
        return np.zeros(customers.height, np.bool_)
    return customers[column].is_in(wanted).fill_null(False).to_numpy()
