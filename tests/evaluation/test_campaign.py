"""A retention campaign in numbers small enough to reckon by hand, and what no ranking can change."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from retinue.evaluation.campaign import campaign
from retinue.evaluation.comparison import ALL_ZERO, Entry
from retinue.evaluation.outcomes import Outcomes, all_zero
from retinue.evaluation.profit import SHARES
from retinue.options import ValueOptions

HALF = SHARES.index(0.5)


def outcomes(origin: list[int], p_churn: list[float], spend: list[float], orders: list[float]) -> Outcomes:
    rows = len(origin)
    known = {
        "origin": np.array(origin),
        "customer": np.arange(rows),
        "p_churn": np.array(p_churn),
        "expected_spend": np.array(spend),
        "orders": np.array(orders),
    }
    return Outcomes(**{item.name: known.get(item.name, np.zeros(rows)) for item in fields(Outcomes)})


def four() -> Outcomes:
    """Worth of a customer kept, expected spend / (1 - p_churn): 100, 50, 20 and 40; the first and last leave."""
    return outcomes([0] * 4, [0.5, 0.8, 0.5, 0.75], [50, 10, 10, 10], [0, 1, 2, 0])


def test_worked() -> None:
    found = campaign(
        [Entry("one", (four(),))], ValueOptions(margin_rate=0.5, save_share=0.2, contact_cost=2.0)
    )
    # at stake: .5·.2·100·.5 = 5, .8·.2·50·.5 = 4, .5·.2·20·.5 = 1 and .75·.2·40·.5 = 3: order first, second, last, third
    expected = [5 - 2, 5 + 4 - 4, 5 + 4 + 3 - 6, 5 + 4 + 3 + 1 - 8]
    came = [10 - 2, 10 - 4, 10 + 4 - 6, 10 + 4 - 8]
    quarters = [SHARES.index(share) for share in (0.25, 0.5, 0.75, 1.0)]
    curves = found.by_model["one"]
    assert [curves.expected[i].profit for i in quarters] == pytest.approx(expected)
    assert [curves.realised[i].profit for i in quarters] == pytest.approx(came)
    assert curves.chosen.share == 0.75
    assert curves.chosen.profit == pytest.approx(8)
    assert [found.most[i].profit for i in quarters] == pytest.approx([8, 10, 8, 6])
    assert curves.realised[HALF].customers == 2


def test_without_a_cost_treating_everyone_just_pays() -> None:
    found = campaign([Entry("one", (four(),))], ValueOptions())
    assert found.contact_cost == pytest.approx(0.1 * (100 + 40) / 4)
    assert found.by_model["one"].realised[-1].profit == pytest.approx(0)
    assert found.most[HALF].profit == pytest.approx(0.1 * 140 / 2)


def test_what_a_forecaster_says_of_worth_does_not_raise_what_it_earns() -> None:
    rows = four()
    boaster = replace(rows, expected_spend=rows.expected_spend * 1_000)
    modest = [Entry(name, (rows,)) for name in ("a", "b")]
    value = ValueOptions(contact_cost=1.0)
    found = campaign([*modest, Entry("boaster", (boaster,)), Entry(ALL_ZERO, (all_zero(rows),))], value)
    earned = {name: [p.profit for p in curves.realised] for name, curves in found.by_model.items()}
    assert earned["boaster"] == pytest.approx(earned["a"])
    assert found.by_model["boaster"].expected[HALF].profit > 500 * found.by_model["a"].expected[HALF].profit
    assert found.by_model["a"] == campaign(modest, value).by_model["a"], "one voice of three moves no median"


def test_the_same_share_is_treated_at_every_origin() -> None:
    """Ranks of different times do not compare: the second origin's leavers are treated although others scare more."""
    rows = outcomes([0, 0, 1, 1], [0.9, 0.8, 0.2, 0.1], [1, 2, 8, 9], [0, 1, 0, 1])
    found = campaign([Entry("one", (rows,))], ValueOptions(save_share=1.0, contact_cost=1.0))
    assert found.by_model["one"].realised[HALF].profit == pytest.approx(10 + 10 - 2)
    assert found.by_model["one"].realised[HALF].customers == 2


def test_by_lot_profit_grows_in_step_with_the_share() -> None:
    found = campaign(
        [Entry("one", (four(),)), Entry(ALL_ZERO, (all_zero(four()),))], ValueOptions(contact_cost=1.0)
    )
    line = [point.profit for point in found.by_model[ALL_ZERO].realised]
    assert line == pytest.approx(np.linspace(0, line[-1], len(line)))
    assert found.by_model[ALL_ZERO].chosen.share == 0
