"""The shipped base model itself: its size, its card, and what must hold of whatever it is asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
import torch

from retinue.forecasting.clocked import context_of, read_clocks
from retinue.forecasting.zero_shot import BaseAt, base_model, clocks_of, shipped, zero_shot_at
from retinue.models import clocks as law
from retinue.models.clocks import Clocks
from retinue.pretraining.pretrained import LAW
from retinue.pretraining.reading import readouts_of
from retinue.pretraining.stream import SimulatedBase, simulated_base
from retinue.sequences.behaviour import behaviour_at
from retinue.sequences.tokens import Tokens, tokens_of
from retinue.worlds import simulate
from retinue.worlds.prior import HELD_OUT, Family
from retinue.worlds.spec import Customers, Spec, Spread

HALF_YEAR = torch.tensor([180.0])


def base_of(number: int, family: Family = Family.prior) -> tuple[SimulatedBase, BaseAt]:
    base = simulated_base((31, number), family)
    return base, zero_shot_at(base_model(), base.tokens, base.cutoff).base


def said(base: SimulatedBase, at: BaseAt) -> Clocks:
    return clocks_of(at, base.tokens, base.behaviour.customer)


def test_it_is_small_and_says_what_it_is() -> None:
    folder, model = shipped(), base_model()
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    assert size < 8e6
    assert (folder / LAW).is_file()
    card = model.trained.card
    assert 300_000 <= card["weights"] <= 800_000
    assert card["weights"] == sum(
        p.numel() for p in (*model.trained.network.parameters(), *model.law.parameters())
    )
    assert set(card["held_out"]) == {family.value for family in (Family.prior, *HELD_OUT)}
    assert card["options"]["pretraining"]["steps"] >= card["best_step"] > 0


def silent_ones(base: SimulatedBase) -> tuple[np.ndarray, Tokens]:
    """One-time buyers of the base's median order who differ only in how long ago that was; days ago, and tokens."""
    days = np.unique(np.geomspace(1, base.units.span - 1, 60).astype(int))
    when = [base.cutoff - timedelta(days=int(each)) for each in days]
    moment = pl.Series(when).cast(pl.Datetime("us", "UTC"))
    events = pl.DataFrame(
        {
            "customer": np.arange(len(days)),
            "customer_id": [str(i) for i in range(len(days))],
            "event_time": moment,
            "known_time": moment,
            "event_type": ["order"] * len(days),
            "amount": [base.units.order_value] * len(days),
        }
    )
    return days, tokens_of(events.lazy(), "UTC")


@pytest.mark.parametrize("number", range(12))
def test_the_longer_a_one_time_buyer_is_silent_the_likelier_to_stay_away(number: int) -> None:
    base, at = base_of(number)
    days, tokens = silent_ones(base)
    churn = law.survival(clocks_of(at, tokens, np.arange(len(days))), HALF_YEAR)[:, 0].numpy()
    assert (np.maximum.accumulate(churn) - churn).max() < 0.005  # the season of the one order may show
    assert churn[-1] > churn[0] + 0.05


@pytest.mark.parametrize("family", list(Family))
def test_nobody_is_alive_for_ever_and_all_horizons_fit_together(family: Family) -> None:
    base, at = base_of(3, family)
    clocks = said(base, at)
    days = torch.tensor([1.0, 30, 90, 365, 1_095, 3_650, 36_500])
    churn, orders = law.survival(clocks, days), law.expected_orders(clocks, days)
    assert torch.isfinite(orders).all()
    assert (churn.diff(dim=1) <= 0).all()
    assert (orders.diff(dim=1) >= 0).all()
    assert (orders >= 1 - churn - 1e-9).all()
    assert (churn[:, -1] > 0).all()
    assert (orders[:, -1] < 36_500).all()


def test_which_thousand_customers_tell_of_the_base_hardly_matters() -> None:
    for seed, customers in enumerate((Customers(), Customers(rate=Spread(1 / 20, 1.5)))):
        spec = Spec(days=900, customers=customers, cutoffs=())
        tokens = tokens_of(simulate(spec, 4_000, seed).events.lazy(), "UTC")
        cutoff = spec.start + timedelta(days=700, microseconds=-1)
        at = zero_shot_at(base_model(), tokens, cutoff).base
        readouts = readouts_of(at.reading, behaviour_at(tokens, cutoff, at.reading.units), cutoff)
        assert len(readouts) > 2_500
        lot = np.random.default_rng(0)
        orders = []
        for _ in range(3):
            some = readouts.take(np.sort(lot.choice(len(readouts), 1_000, replace=False)))
            clocks = read_clocks(at.trained, tokens, readouts, context_of(at.trained, tokens, some))
            orders.append(law.expected_orders(clocks, HALF_YEAR)[:, 0].numpy())
        for other in orders[1:]:
            assert np.median(np.abs(other / orders[0] - 1)) < 0.01


def test_another_currency_is_the_same_base() -> None:
    base, at = base_of(1)
    dear = replace(base.tokens, money=base.tokens.money * 100, numbers=base.tokens.numbers * 100)
    other = zero_shot_at(base_model(), dear, base.cutoff).base
    one, two = said(base, at), clocks_of(other, dear, base.behaviour.customer)
    assert other.reading.units.order_value == pytest.approx(100 * at.reading.units.order_value)
    torch.testing.assert_close(two.a_log, one.a_log, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(two.value_log_mean, one.value_log_mean, rtol=1e-3, atol=1e-3)
