"""The shipped base model itself: its size, its card, and what must hold of whatever it is asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from retinue.forecasting.clocked import context_of, read_clocks
from retinue.forecasting.zero_shot import BaseAt, base_model, clocks_of, shipped, zero_shot_at
from retinue.models import clocks as law
from retinue.models.clocks import Clocks
from retinue.pretraining.pretrained import LAW
from retinue.pretraining.reading import readouts_of
from retinue.pretraining.stream import SimulatedBase, simulated_base
from retinue.sequences.behaviour import behaviour_at
from retinue.worlds.prior import HELD_OUT, Family

HALF_YEAR, CENTURY = torch.tensor([180.0]), torch.tensor([36_500.0])


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


@pytest.mark.parametrize("number", [0, 1, 8, 9, 10, 11])
def test_the_longer_a_one_time_buyer_is_silent_the_likelier_to_stay_away(number: int) -> None:
    base, at = base_of(number)
    once = base.behaviour.frequency == 0
    silence, churn = base.behaviour.age[once], law.survival(said(base, at), HALF_YEAR)[:, 0].numpy()[once]
    assert once.sum() >= 50
    assert spearmanr(silence, churn)[0] > 0.97
    sixths = [float(churn[rows].mean()) for rows in np.array_split(np.argsort(silence), 6)]
    assert sixths == sorted(sixths)
    assert sixths[-1] > sixths[0] + 0.05


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


def test_which_customers_tell_of_the_base_hardly_matters() -> None:
    for number in (0, 1, 11):
        base, at = base_of(number)
        behaviour, tokens = base.behaviour, base.tokens
        readouts = readouts_of(at.reading, behaviour_at(tokens, base.cutoff, at.reading.units), base.cutoff)
        lot = np.random.default_rng(0)
        orders = []
        for _ in range(3):
            count = min(1_000, len(behaviour.customer) // 2)
            some = readouts.take(np.sort(lot.choice(len(readouts), count, replace=False)))
            context = context_of(at.trained, tokens, some)
            clocks = read_clocks(at.trained, tokens, readouts, context)
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
