"""Offers and decisions: what is never done, whatever the menu, the customers and the limits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from retinue.decisions import quadrants
from retinue.decisions.decide import NOTHING, Decided, budget_curve, customers_of, decide
from retinue.decisions.offers import in_holdout, offers
from retinue.options import ActionOptions, DecisionOptions, EffectSource
from retinue.schema import DECISIONS, FORECASTS, SEGMENTS, InputError

CUTOFF = datetime(2023, 12, 31, tzinfo=UTC)
CALL = ActionOptions(channel="phone", fixed_cost=3, minutes=10, keeps=0.3, keeps_lower=0.2, keeps_upper=0.4)
MAIL = ActionOptions(fixed_cost=0.1, keeps=0.05, keeps_lower=0.03, keeps_upper=0.07)
THIRTY_OFF = ActionOptions(fixed_cost=0.1, order_share=0.3, keeps=0.3, keeps_lower=0.2, keeps_upper=0.4)
MENU = {"call": CALL, "mail": MAIL, "thirty_off": THIRTY_OFF}


def base(rows: list[dict[str, Any]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Customers and quadrants from p_churn, clv and, as one likes, orders, suppressed, contacts, lifecycle, segment, cause."""
    count = len(rows)

    def of(name: str, default: Any) -> list[Any]:
        return [row.get(name, default) for row in rows]

    ids = of("customer_id", None)
    ids = [one or f"c{i:04d}" for i, one in enumerate(ids)]
    orders = [
        o if o is not None else 2 * (1 - r["p_churn"]) for o, r in zip(of("orders", None), rows, strict=True)
    ]
    forecasts = pl.DataFrame(
        {
            "customer_id": ids, "cutoff": [CUTOFF] * count, "horizon_days": [365] * count, "model": ["pareto_nbd"] * count,
            "p_churn": of("p_churn", 0.5), "expected_orders": orders, "expected_spend": of("clv", 10.0),
            "clv": of("clv", 10.0), "clv_lower": [0.0] * count, "clv_upper": of("clv", 10.0), "next_order_days": [None] * count,
            "cause": of("cause", "no reliable reason"),
        },
        schema={**FORECASTS.schema, "cause": pl.String()},
    )  # fmt: skip
    segments = pl.DataFrame(
        {
            "customer_id": ids, "cutoff": [CUTOFF] * count, "segment": of("segment", 0), "segment_name": ["all"] * count,
            "lifecycle": of("lifecycle", "active"),
        },
        schema=SEGMENTS.schema,
    )  # fmt: skip
    features = pl.DataFrame(
        {
            "customer_id": ids, "cutoff": [CUTOFF] * count, "suppressed": of("suppressed", 0.0),
            "campaign_exposures_30d": of("contacts", 0.0),
        },
        schema_overrides={"cutoff": SEGMENTS.schema["cutoff"]},
    )  # fmt: skip
    quadrant = quadrants(forecasts, DecisionOptions(value_threshold=50))
    running = pl.DataFrame(
        [(one, name) for one, name in zip(ids, of("experiment", None), strict=True) if name],
        schema={"customer_id": pl.String(), "experiment": pl.String()},
        orient="row",
    )
    return customers_of(quadrant, forecasts, features, segments, running), quadrant


def decided(
    rows: list[dict[str, Any]],
    menu: dict[str, ActionOptions] = MENU,
    budget: float | None = None,
    rules: DecisionOptions | None = None,
    seed: int = 0,
) -> Decided:
    customers, quadrant = base(rows)
    rules = rules or DecisionOptions()
    return decide(customers, quadrant, offers(customers, menu, rules), menu, rules, budget, seed)


def test_the_dearer_action_is_given_only_where_it_saves_more_than_it_costs() -> None:
    """At stake 100 a call saves 30 for 3; at stake 12 it may save as little as 2.40, and the mail is sent."""
    table = decided(
        [{"p_churn": 0.5, "clv": 100.0}, {"p_churn": 0.5, "clv": 12.0}], {"call": CALL, "mail": MAIL}
    ).table
    assert table["action"].to_list() == ["call", "mail"]
    assert table["expected_gain"].to_list() == pytest.approx([30.0, 0.6])
    assert table["gain_lower"].to_list() == pytest.approx([20.0, 0.36])
    assert table["expected_cost"].to_list() == pytest.approx([3.0, 0.1])
    assert table["alternatives"][0] == "call +27.0; mail +4.9"


def test_a_discount_is_paid_to_those_who_would_have_ordered_anyway() -> None:
    """Of 100 such customers 50 would order (2 × 25 each); 15 of the other 50 are kept: 65 orders less 30 % of 50."""
    customers, _ = base([{"p_churn": 0.5, "clv": 50.0}])
    made = offers(customers, {"thirty_off": THIRTY_OFF}, DecisionOptions())
    assert made.gain[0, 0] == pytest.approx(0.3 * 0.5 * 100)
    assert made.cost[0, 0] == pytest.approx(0.1 + 0.3 * 50 * 0.65)
    assert made.barred[0, 0] == 0 or made.cost[0, 0] > made.lower[0, 0]


def test_a_thirty_per_cent_discount_never_goes_to_who_is_worth_less_than_it() -> None:
    rows = [{"p_churn": p, "clv": clv} for p in (0.3, 0.75, 0.95) for clv in (0.01, 0.05, 8.0)]
    table = decided(rows, {"thirty_off": THIRTY_OFF}).table
    worth = pl.Series([row["clv"] / (1 - row["p_churn"]) for row in rows])
    made = offers(base(rows)[0], {"thirty_off": THIRTY_OFF}, DecisionOptions())
    dear = pl.Series(made.cost[:, 0]) > worth
    assert dear.any()
    assert (table.filter(dear)["action"] == NOTHING).all()
    assert (table["action"] == "thirty_off").any()
    assert "loss guard: may cost more than it saves" in table["binding"].to_list()


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"p_churn": 0.9, "suppressed": 1.0}, "no consent"),
        ({"p_churn": 0.9, "lifecycle": "suppressed"}, "no consent"),
        ({"p_churn": 0.9, "contacts": 4.0}, "contact cap"),
        ({"p_churn": 0.9, "experiment": "winback"}, "in a running experiment: treated by its arm"),
        ({"p_churn": 0.01, "clv": 5.0}, "sure thing: stays anyway"),
        ({"p_churn": 0.99, "clv": 0.001}, "loss guard: may cost more than it saves"),
    ],
)
def test_why_nothing_is_done(row: dict[str, Any], why: str) -> None:
    table = decided([row], {"mail": MAIL}).table
    assert table["action"].to_list() == [NOTHING]
    assert table["binding"].to_list() == [why]
    assert table["expected_cost"].to_list() == [0.0]


def test_sleeping_dogs_lie() -> None:
    harm = ActionOptions(keeps=-0.1, keeps_lower=-0.2, keeps_upper=0.0)
    assert decided([{"p_churn": 0.5}], {"nag": harm}).table["binding"].to_list() == [
        "sleeping dog: better left alone"
    ]


def test_a_person_answers_a_cause_and_a_stage_and_a_quadrant() -> None:
    only = ActionOptions(
        keeps=0.5,
        keeps_lower=0.4,
        keeps_upper=0.6,
        causes=["service"],
        stages=["cooling"],
        quadrants=["save"],
    )
    right = {"p_churn": 0.8, "clv": 40.0, "cause": "service", "lifecycle": "cooling"}
    rows = [right, right | {"cause": "price"}, right | {"lifecycle": "active"}, right | {"p_churn": 0.5}]
    assert decided(rows, {"visit": only}).table["action"].to_list() == ["visit", NOTHING, NOTHING, NOTHING]


def test_a_menu_with_a_strange_word_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"actions.menu.mail.quadrants: 'keep' is not one; there are save, advocate"
    ):
        decided([{"p_churn": 0.5}], {"mail": ActionOptions(quadrants=["keep"])})


def test_a_measured_effect_without_an_estimate_is_not_given() -> None:
    menu = {"mail": ActionOptions(effect=EffectSource.measured, campaign="x")}
    customers, quadrant = base([{"p_churn": 0.5}, {"p_churn": 0.5}])
    known = pl.DataFrame(
        {"customer_id": ["c0001"], "expected_gain": [3.0], "gain_lower": [2.0], "gain_upper": [4.0]}
    )
    rules = DecisionOptions()
    table = decide(
        customers, quadrant, offers(customers, menu, rules, {"mail": known}), menu, rules, None
    ).table
    assert table["action"].to_list() == [NOTHING, "mail"]
    assert table["binding"][0] == "effect not measured"
    assert table["effect_source"].to_list() == [None, "measured"]


def test_the_budget_binds_and_its_price_is_told() -> None:
    found = decided(
        [{"p_churn": 0.5, "clv": float(clv)} for clv in range(20, 120)], {"call": CALL}, budget=30
    )
    assert found.table.filter(pl.col("action") == "call").height == 10
    assert found.limits["limit"][0] == "budget"
    assert found.limits["used"][0] == pytest.approx(30)
    assert found.limits["price"][0] > 1
    assert (found.table["binding"] == "budget").all()


def test_people_have_only_so_many_hours() -> None:
    found = decided(
        [{"p_churn": 0.5, "clv": 80.0}] * 20, {"call": CALL}, rules=DecisionOptions(agent_hours=1)
    )
    assert found.table.filter(pl.col("action") == "call").height == 6
    assert found.limits["price"][0] == pytest.approx((0.3 * 80 - 3) * 6, rel=0.01)  # six calls an hour


def test_a_floor_that_cannot_be_met_is_refused() -> None:
    rows = [{"p_churn": 0.5, "clv": 80.0, "segment": i % 2} for i in range(10)]
    met = decided(rows, {"call": CALL}, 9, DecisionOptions(floors={"1": 2}))
    assert met.table.filter(pl.col("action") == "call").height == 3
    with pytest.raises(
        InputError, match=r"floor of segment 1 asks for 4 customers, and 3 can be given an action"
    ):
        decided(rows, {"call": CALL}, 9, DecisionOptions(floors={"1": 4}))
    with pytest.raises(InputError, match=r"decisions.floors.7: there is no segment 7; there are 0, 1"):
        decided(rows, {"call": CALL}, 9, DecisionOptions(floors={"7": 1}))


CUSTOMER = st.fixed_dictionaries(
    {
        "p_churn": st.floats(0.001, 0.999),
        "clv": st.floats(-5, 500),
        "suppressed": st.sampled_from([0.0, 0.0, 1.0]),
        "contacts": st.sampled_from([0.0, 1.0, 4.0]),
        "lifecycle": st.sampled_from(["active", "cooling", "lapsed", "suppressed"]),
        "segment": st.integers(0, 1),
        "experiment": st.sampled_from([None, None, "winback"]),
    }
)
SHARES = st.tuples(*[st.floats(-0.2, 0.6)] * 3).map(sorted)
ACTION = st.builds(
    lambda ends, cost, part, minutes, capacity, consent, channel: ActionOptions(
        channel=channel, fixed_cost=cost, order_share=part, minutes=minutes, capacity=capacity, needs_consent=consent,
        keeps_lower=ends[0], keeps=ends[1], keeps_upper=ends[2],
    ),
    SHARES, st.floats(0, 20), st.floats(0, 0.5), st.sampled_from([0.0, 15.0]), st.sampled_from([None, 0.0, 2.0]),
    st.booleans(), st.sampled_from(["email", "phone"]),
)  # fmt: skip


@settings(max_examples=80, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    st.lists(CUSTOMER, min_size=1, max_size=25),
    st.dictionaries(st.sampled_from(["a", "b", "c"]), ACTION, max_size=3),
    st.floats(0, 60),
    st.floats(0, 30),
    st.floats(0, 2),
    st.floats(0, 0.5),
)
def test_guards_and_limits_hold_for_any_menu(
    rows: list[dict[str, Any]],
    menu: dict[str, ActionOptions],
    budget: float,
    emails: float,
    hours: float,
    holdout: float,
) -> None:
    rules = DecisionOptions(channel_budgets={"email": emails}, agent_hours=hours, holdout=holdout)
    customers, quadrant = base(rows)
    made = offers(customers, menu, rules)
    found = decide(customers, quadrant, made, menu, rules, budget)
    table = DECISIONS.check(found.table)
    given_to = table.filter(pl.col("action") != NOTHING)
    assert table["customer_id"].to_list() == quadrant["customer_id"].to_list()
    assert (given_to["expected_cost"] <= given_to["gain_lower"]).all()
    assert (given_to["expected_gain"] > given_to["expected_cost"]).all()
    assert given_to["expected_cost"].sum() <= budget * (1 + 1e-9) + 1e-9
    assert given_to.filter(pl.col("channel") == "email")["expected_cost"].sum() <= emails * (1 + 1e-9) + 1e-9
    assert sum(menu[name].minutes for name in given_to["action"]) / 60 <= hours * (1 + 1e-9) + 1e-9
    for name, action in menu.items():
        times = (given_to["action"] == name).sum()
        assert action.capacity is None or times <= action.capacity
    kept_out = table.filter(pl.Series(in_holdout(table["customer_id"], holdout)))
    assert (kept_out["action"] == NOTHING).all()
    tried = table.join(customers.filter(pl.col("experiment").is_not_null()), on="customer_id", how="semi")
    assert (tried["action"] == NOTHING).all()
    told = table.join(
        customers.select("customer_id", "suppressed", "campaign_exposures_30d", "lifecycle"), on="customer_id"
    )
    asked = told.filter(
        pl.col("action").is_in([name for name, action in menu.items() if action.needs_consent])
    )
    assert not asked.filter((pl.col("suppressed") > 0) | (pl.col("lifecycle") == "suppressed")).height
    assert (
        told.filter(pl.col("action") != NOTHING)["campaign_exposures_30d"] + 1 <= rules.most_contacts
    ).all()
    assert (table["propensity"] == 1.0).all()


def test_exploration_is_random_with_the_chance_it_tells() -> None:
    """The chance told of what was done, averaged over many draws, is how often it was done."""
    rows = [{"p_churn": 0.5, "clv": 100.0}, {"p_churn": 0.5, "clv": 0.001}] * 40
    rules = DecisionOptions(exploration=0.3)
    counts = dict.fromkeys((*MENU, NOTHING), 0)
    told: dict[str, set[float]] = {name: set() for name in counts}
    for seed in range(60):
        table = decided(rows, MENU, None, rules, seed).table
        worth = table.gather_every(2)
        for action, propensity in worth.select("action", "propensity").iter_rows():
            counts[action] += 1
            told[action].add(round(propensity, 9))
        assert (
            table.gather_every(2, 1)["propensity"] == 1.0
        ).all()  # nothing can be given: nothing is random
    total = sum(counts.values())
    assert told["call"] == {round(1 - 0.3 * 3 / 4, 9)}
    assert told["mail"] == told["thirty_off"] == told[NOTHING] == {round(0.3 / 4, 9)}
    for name, chances in told.items():
        chance = next(iter(chances))
        assert counts[name] / total == pytest.approx(chance, abs=4 * (chance * (1 - chance) / total) ** 0.5)


def test_exploration_keeps_the_limits_or_is_refused() -> None:
    rows = [{"p_churn": 0.5, "clv": 100.0}] * 200
    rules = DecisionOptions(exploration=0.2)
    found = decided(rows, {"call": CALL}, 150, rules)
    assert found.table["expected_cost"].sum() <= 150
    assert found.table["explored"].sum() > 20
    with pytest.raises(InputError, match=r"decisions.exploration: what it draws takes"):
        decided(rows, {"call": CALL}, 10, rules)


def test_the_holdout_grows_and_never_changes_sides() -> None:
    ids = pl.Series([f"c{i}" for i in range(4_000)])
    small, large = in_holdout(ids, 0.1), in_holdout(ids, 0.2)
    assert not (small & ~large).any()
    assert large.mean() == pytest.approx(0.2, abs=0.02)
    assert (in_holdout(ids.reverse(), 0.1)[::-1] == small).all()


def test_the_curve_of_budgets_rises_ever_more_slowly() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"p_churn": float(p), "clv": float(v)}
        for p, v in zip(rng.uniform(0, 1, 300), rng.lognormal(3, 1, 300), strict=True)
    ]
    customers, _ = base(rows)
    rules = DecisionOptions()
    curve = budget_curve(customers, offers(customers, MENU, rules), MENU, rules)
    net, spent = curve["net_gain"].to_numpy(), curve["expected_cost"].to_numpy()
    assert (np.diff(net) >= -1e-6).all()
    assert (spent <= curve["budget"].to_numpy() + 1e-6).all()
    slopes = np.diff(net) / np.diff(curve["budget"].to_numpy())
    assert (np.diff(slopes) <= 0.05 * slopes[:-1]).all()
    assert curve["next_unit"][-1] == pytest.approx(0, abs=1e-6)


def test_the_order_of_rows_changes_nothing() -> None:
    rows = [{"p_churn": 0.02 * i + 0.01, "clv": 3.0 * i, "customer_id": f"c{i:04d}"} for i in range(45)]
    rules = DecisionOptions(exploration=0.1)
    one, other = (
        decided(rows, budget=60, rules=rules).table,
        decided(rows[::-1], budget=60, rules=rules).table,
    )
    assert one.equals(other.sort("customer_id"))
