"""The three order models: published numbers, identities, simulation, and bases that break other fits."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retinue.models.btyd import BetaGeometricNBD, Btyd, Histories, ParetoNBD, fit, predict
from retinue.models.fitting import Sample
from retinue.models.predictive import orders_log_score
from retinue.options import Rung
from tests.golden.freeze_btyd import cdnow
from tests.models.bases import cdnow_file, histories, sample, simulate

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "btyd.json").read_text())
RUNGS = (Rung.bg_nbd, Rung.mbg_nbd, Rung.pareto_nbd)
MODELS: dict[str, Btyd] = {
    "bg_nbd": BetaGeometricNBD(0.6, 50.0, 0.8, 2.0, dies_at_first=False),
    "mbg_nbd": BetaGeometricNBD(0.6, 50.0, 0.8, 2.0, dies_at_first=True),
    "pareto_nbd": ParetoNBD(0.6, 80.0, 0.8, 90.0),
}
SOME = histories(
    (0, 0, 120), (0, 0, 1), (1, 30, 200), (3, 190, 200), (3, 20, 200), (60, 290, 300), (2_000, 2_990, 3_000)
)


def cdnow_sample(name: str) -> Sample:
    return sample(*cdnow(cdnow_file(f"CDNOW_{name}.txt")))


@pytest.mark.parametrize(
    ("rung", "published"),
    [(Rung.bg_nbd, (0.243, 4.414, 0.793, 2.426)), (Rung.pareto_nbd, (0.553, 10.578, 0.606, 11.669))],
)
def test_cdnow_sample_gives_the_published_parameters(rung: Rung, published: tuple[float, ...]) -> None:
    r, alpha, third, last = fit(rung, cdnow_sample("sample")).parameters.tolist()
    weeks = (r, alpha / 7, third, last / 7 if rung is Rung.pareto_nbd else last)
    assert weeks == pytest.approx(published, rel=5e-3)


@pytest.mark.parametrize("row", GOLDEN["lifetimes"], ids=lambda row: f"{row['rung']}-{row['data']}")
def test_log_likelihood_agrees_with_lifetimes(row: dict[str, Any]) -> None:
    data = cdnow_sample(str(row["data"]))
    r, alpha, third, last = row["parameters"]
    model: Btyd
    if row["rung"] == "pareto_nbd":
        model = ParetoNBD(r, alpha * 7, third, last * 7)
    else:
        model = BetaGeometricNBD(r, alpha * 7, third, last, dies_at_first=row["rung"] == "mbg_nbd")
    of = Histories(*data.columns)
    weeks = math.log(7) * float(
        data.columns[0] @ data.weights
    )  # densities of x order times, per week instead of per day
    theirs = float(row["log_likelihood"])
    assert float(model.log_likelihood(of) @ data.weights) + weeks == pytest.approx(theirs, rel=1e-6)
    ours = fit(Rung[str(row["rung"])], data)
    assert float(ours.log_likelihood(of) @ data.weights) + weeks == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_p_churn_is_the_ratio_of_likelihoods_of_longer_silence(name: str) -> None:
    model, days = MODELS[name], 90
    longer = Histories(SOME.frequency, SOME.recency_days, SOME.T_days + days)
    ratio = torch.exp(model.log_likelihood(longer) - model.log_likelihood(SOME))
    assert predict(model, SOME, [days], 0.0).p_churn[0].tolist() == pytest.approx(ratio.tolist(), rel=1e-7)


def test_bg_nbd_one_time_buyers_have_a_closed_form() -> None:
    got = predict(
        BetaGeometricNBD(0.25, 30.0, 0.8, 2.4, dies_at_first=False), histories((0, 0, 200)), [273], 0.0
    )
    assert got.p_churn.item() == pytest.approx((230 / 503) ** 0.25, rel=1e-13)


@pytest.mark.parametrize("case", GOLDEN["bg_nbd_expectations"])
def test_bg_nbd_expectation_agrees_with_its_hypergeometric_form(case: list[float]) -> None:
    r, alpha, a, b, x, t_x, T, h, expected = case
    model = BetaGeometricNBD(r, alpha, a, b, dies_at_first=False)
    of, horizon = histories((x, t_x, T)), torch.tensor([h], dtype=torch.float64)
    reach = h / (alpha + T)  # 48 points lose digits where the horizon dwarfs the history
    assert (model.p_alive(of) * model.orders(of, horizon)).item() == pytest.approx(
        expected, rel=1e-9 if reach < 10 else 2e-5
    )


@pytest.mark.parametrize("name", MODELS)
def test_forecasts_agree_with_simulated_futures(name: str) -> None:
    model, horizon = MODELS[name], 200
    told = (0.6, 80.0, 0.8, 90.0) if name == "pareto_nbd" else (0.6, 50.0, 0.8, 2.0)
    base = simulate(name, told, 40_000, horizon, seed=3)
    said = predict(
        model, Histories(*(torch.from_numpy(base[key]) for key in ("x", "t_x", "T"))), [horizon], 0.0
    )
    p_churn, orders, shape = (part[0].numpy() for part in (said.p_churn, said.expected_orders, said.shape))
    once = np.exp(orders_log_score(np.ones_like(orders), p_churn, orders, shape))
    for low, high in ((0, 0), (1, 1), (2, 4), (5, 1e9)):
        group = (base["x"] >= low) & (base["x"] <= high)
        error = 4 / math.sqrt(group.sum())
        ahead = base["ahead"][group]
        assert p_churn[group].mean() == pytest.approx((ahead == 0).mean(), abs=0.5 * error)
        assert orders[group].mean() == pytest.approx(ahead.mean(), abs=ahead.std() * error)
        assert once[group].mean() == pytest.approx(
            (ahead == 1).mean(), abs=0.4 * error + 0.025
        )  # two moments, not all


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_discounted_orders_are_the_integral_of_discounted_rates(name: str, rate: float) -> None:
    model, days = MODELS[name], 730
    steps = torch.linspace(0, days, 2_001, dtype=torch.float64)
    upto = (model.p_alive(SOME) * model.orders(SOME, steps[1:])).numpy()
    parts = np.diff(np.vstack([np.zeros(len(SOME.T_days)), upto]), axis=0)
    middle = ((steps[1:] + steps[:-1]) / 2).numpy()
    slow = np.exp(-rate / 365.25 * middle) @ parts
    assert predict(model, SOME, [days], rate).discounted_orders[0].tolist() == pytest.approx(
        slow.tolist(), rel=2e-5
    )


@pytest.mark.parametrize("name", MODELS)
def test_next_order_is_where_p_churn_passes_one_half(name: str) -> None:
    model = MODELS[name]
    days = model.next_order_days(SOME)
    known = ~torch.isnan(days)
    assert known.any()
    for i in torch.nonzero(known)[:, 0]:
        own = Histories(SOME.frequency[i : i + 1], SOME.recency_days[i : i + 1], SOME.T_days[i : i + 1])
        half = 1 - model.p_alive(own) * model.p_order(own, days[i])
        assert half.item() == pytest.approx(0.5, abs=1e-10)
    never = predict(model, SOME, [3_650], 0.0).p_churn[0]
    assert bool((never[~known] > 0.5).all())
    assert bool((never[known] <= 0.5 + 1e-12).all())


def test_bg_nbd_alone_holds_one_time_buyers_alive_for_ever() -> None:
    old = histories((0, 0, 3_000))
    assert [MODELS[name].p_alive(old).item() == 1 for name in ("bg_nbd", "mbg_nbd", "pareto_nbd")] == [
        True,
        False,
        False,
    ]


@st.composite
def history(draw: st.DrawFn) -> tuple[float, float, float]:
    T = draw(st.integers(0, 4_000))
    x = draw(st.integers(0, min(T, 1_500)))
    return float(x), float(draw(st.integers(x, T))) if x else 0.0, float(T)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(history(), min_size=1, max_size=5),
    logs=st.tuples(*[st.floats(-2.5, 2.5)] * 4),
    name=st.sampled_from(sorted(MODELS)),
    delta=st.floats(0, 0.5),
)
@example(rows=[(0.0, 0.0, 0.0)], logs=(2.0, 0.0, 2.0, 0.0), name="bg_nbd", delta=0.5)
def test_invariants_hold_for_any_history_and_parameters(
    rows: list[tuple[float, float, float]], logs: tuple[float, ...], name: str, delta: float
) -> None:
    r, alpha, third, last = (math.exp(value) for value in logs)
    model: Btyd = ParetoNBD(r, 50 * alpha, third, 80 * last)
    if name != "pareto_nbd":
        model = BetaGeometricNBD(r, 50 * alpha, third, last, dies_at_first=name == "mbg_nbd")
    of = histories(*rows)
    said = predict(model, of, [1, 30, 182, 365, 1_825], delta)
    small = 1e-12
    assert bool(((said.p_churn >= 0) & (said.p_churn <= 1)).all())
    assert bool((said.p_churn.diff(dim=0) <= small).all())
    assert bool((said.expected_orders.diff(dim=0) >= -small).all())
    assert bool((said.expected_orders >= 1 - said.p_churn - small).all())
    assert bool((said.discounted_orders.diff(dim=0) >= -1e-9 * said.expected_orders[1:]).all())
    assert bool((said.discounted_orders <= said.expected_orders).all())
    assert bool((said.shape > 0).all())


BROKEN = {
    "one customer, one order, today": [(0, 0, 0, 1)],
    "one customer, one order": [(0, 0, 100, 1)],
    "one customer who orders daily": [(1_000, 1_000, 1_000, 1)],
    "nobody came back": [(0, 0, 10 * i, 50) for i in range(1, 30)],
    "everybody is the same": [(4, 90, 100, 5_000)],
    "everybody came back every day": [(i, i, i, 10) for i in range(1, 60)],
    "a heavy buyer among one-time buyers": [(0, 0, 365, 900), (360, 365, 365, 1)],
    "steady grocery buyers": [(40 + i % 20, 280, 280 + i % 7, 30) for i in range(140)],
    "ten years": [(i % 30, 3_000 if i % 30 else 0, 3_650, 1) for i in range(200)],
}


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("base", BROKEN)
def test_every_base_has_a_finite_fit(rung: Rung, base: str) -> None:
    data = sample(*sorted(set(BROKEN[base])))
    model = fit(rung, data)
    assert bool((torch.isfinite(model.parameters) & (model.parameters > 0)).all())
    of = Histories(*data.columns)
    said = predict(model, of, [30, 365], 0.1)
    for part in (said.p_churn, said.expected_orders, said.discounted_orders, said.shape):
        assert bool(torch.isfinite(part).all())
    assert bool(((said.p_churn >= 0) & (said.p_churn <= 1)).all())


def test_nobody_came_back_means_nobody_is_expected() -> None:
    data = sample(*BROKEN["nobody came back"])
    for rung in RUNGS:
        said = predict(fit(rung, data), histories((0, 0, 290)), [290], 0.0)
        assert said.expected_orders.item() < 0.01


@pytest.mark.parametrize("rung", RUNGS)
def test_threads_do_not_change_a_fit(rung: Rung) -> None:
    base = simulate("pareto_nbd", (0.6, 80.0, 0.8, 90.0), 2_000, 1.0, seed=1)
    rows = np.stack([base["x"], np.floor(base["t_x"]) * (base["x"] > 0), base["T"]])
    data = Sample(torch.from_numpy(rows[:, np.lexsort(rows[::-1])]), torch.ones(2_000, dtype=torch.float64))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = fit(rung, data).parameters
        torch.set_num_threads(3)
        three = fit(rung, data).parameters
    finally:
        torch.set_num_threads(before)
    assert three.tolist() == pytest.approx(one.tolist(), rel=1e-9)


def test_thinned_fits_stay_near_the_whole() -> None:
    data = cdnow_sample("master")
    assert data.thinned(100_000) is data
    assert float(data.thinned(1_000).weights.sum()) == pytest.approx(float(data.weights.sum()))
    whole, thin = (fit(Rung.bg_nbd, data, limit) for limit in (100_000, 1_000))
    of = Histories(*data.columns)
    lost = float((whole.log_likelihood(of) - thin.log_likelihood(of)) @ data.weights)
    assert 0 <= lost < 2.0  # nats among 23,570 customers


def test_auto_is_no_model() -> None:
    with pytest.raises(ValueError, match="rung auto names no"):
        fit(Rung.auto, sample((0, 0, 1, 1)))
