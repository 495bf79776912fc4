"""Corrections of a law: planted ones are found, none where the law is right, none from too little."""

from __future__ import annotations

import numpy as np
import pytest

from retinue.models.boosting import Examples, fit_boosted


def examples(rows: int, effect: float, seed: int = 0) -> Examples:
    """Poisson orders at a law's rate × exp(effect) for every second customer; value 10, or 10 × exp(effect)."""
    lot = np.random.default_rng(seed)
    marked, noise = lot.random(rows) < 0.5, lot.random(rows)
    rate = lot.gamma(2.0, 0.5, rows)
    orders = lot.poisson(rate * np.exp(effect * marked)).astype(float)
    value = 10 * np.exp(effect * marked) * lot.gamma(20, 1 / 20, rows)
    matrix = np.column_stack([marked, noise, np.full(rows, np.nan)]).astype(np.float32)
    some = -np.expm1(-rate)
    return Examples(
        matrix=matrix,
        first_logit=np.log(some / (1 - some)),
        first_log_orders=np.log(rate),
        first_log_value=np.full(rows, np.log(10.0)),
        orders=orders,
        spend=orders * value,
        fold=lot.integers(0, 5, rows),
    )


def test_a_planted_correction_is_found() -> None:
    of = examples(12_000, effect=0.7)
    odds, orders, value = fit_boosted(of, seed=0).corrections(of.matrix)
    marked = of.matrix[:, 0] > 0
    for found in (orders, value):
        assert found[marked].mean() == pytest.approx(0.7, abs=0.07)
        assert found[~marked].mean() == pytest.approx(0.0, abs=0.07)
    assert (
        odds[marked].mean() > 0.7 > 0.2 > abs(odds[~marked].mean())
    )  # log odds move by more than a log rate


def test_a_law_that_is_right_is_left_nearly_alone() -> None:
    of = examples(12_000, effect=0.0)
    for found in fit_boosted(of, seed=0).corrections(of.matrix):
        assert np.abs(found).mean() < 0.05


def test_too_little_to_learn_from_corrects_nothing() -> None:
    of = examples(300, effect=0.7)
    assert all((found == 0).all() for found in fit_boosted(of, seed=0).corrections(of.matrix))


def test_refunds_come_off_the_level_of_value() -> None:
    plain = examples(6_000, effect=0.0)
    returned = np.where(np.arange(6_000) % 10 == 0, -5.0, plain.spend)  # a tenth sends back more than it buys
    parts = {name: getattr(plain, name) for name in plain.__dataclass_fields__}
    found = fit_boosted(Examples(**{**parts, "spend": returned}), seed=0)
    some = plain.orders > 0
    said = np.exp(found.corrections(plain.matrix)[2] + plain.first_log_value) * plain.orders
    assert said[some].sum() == pytest.approx(returned[some].sum(), rel=0.02)


def test_the_same_seed_gives_the_same_trees() -> None:
    of = examples(4_000, effect=0.3)
    one, again, other = (fit_boosted(of, seed).corrections(of.matrix)[1] for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()
