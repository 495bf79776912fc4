"""Effects learnt from randomised exposures, against effects that are known."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from retinue.decisions.experiments.uplift import FORMS, Exposure, calibration, fit_uplift, imbalance, qini
from retinue.schema import InputError


def exposure(count: int, seed: int, slope: float = 0.3, random: bool = True) -> tuple[Exposure, np.ndarray]:
    """Spend around what is foretold; treatment adds `slope` of it. Not random: the better customers are treated."""
    rng = np.random.default_rng(seed)
    foretold = rng.gamma(1.0, 10.0, count)
    chance = np.full(count, 0.5) if random else np.clip(foretold / 40, 0.1, 0.9)
    treated = (rng.random(count) < chance).astype(np.int64)
    effect = slope * foretold
    outcome = foretold + rng.normal(0, 6, count) + effect * treated
    drivers = np.column_stack([foretold, rng.gamma(1.0, 5.0, count)])
    return Exposure(drivers, rng.normal(size=(count, 2)), treated, np.full(count, 0.5), outcome), effect


def test_a_known_effect_is_found_with_its_interval_and_simplest_form() -> None:
    seen, _ = exposure(6_000, 0)
    unseen, effect = exposure(3_000, 1)
    found = fit_uplift(seen)
    mean, low, high = found.effect(unseen.drivers)
    assert found.form == FORMS[0]
    assert mean.mean() == pytest.approx(effect.mean(), rel=0.15)
    assert np.corrcoef(mean, effect)[0, 1] > 0.99
    assert ((low <= effect) & (effect <= high)).mean() > 0.9
    table = found.table(pl.Series([f"c{i}" for i in range(3_000)]), unseen.drivers)
    assert table.columns == ["customer_id", "expected_gain", "gain_lower", "gain_upper"]
    curve = qini(unseen, mean, resamples=100)
    assert curve.area[1] > 0  # better than at random, beyond the band
    assert curve.gain[-1] == pytest.approx(unseen.pseudo.mean())
    assert (curve.lower <= curve.upper).all()
    tenths = calibration(unseen, mean)
    assert (np.abs(tenths["predicted"] - tenths["estimated"]) < 4 * tenths["error"]).all()


def test_where_there_is_no_effect_none_is_claimed() -> None:
    seen, _ = exposure(4_000, 2, slope=0.0)
    mean, low, high = fit_uplift(seen).effect(seen.drivers)
    assert (low <= 0).mean() > 0.8
    assert (high >= 0).all()
    assert abs(mean.mean()) < 1.0


def test_an_exposure_that_was_not_random_is_found_out() -> None:
    assert imbalance(exposure(4_000, 3)[0]) < 4
    assert imbalance(exposure(4_000, 4, random=False)[0]) > 4


def test_too_few_customers_are_refused() -> None:
    with pytest.raises(InputError, match=r"at least 200 of each"):
        fit_uplift(exposure(300, 5)[0])


def test_the_qini_curve_by_hand() -> None:
    """Two treated who spent 4 and 0, two others who spent 1 and 1, half each: effects 2 × (4, -1, 0, -1) in order."""
    seen = Exposure(
        np.zeros((4, 1)),
        np.zeros((4, 1)),
        np.array([1, 0, 1, 0]),
        np.full(4, 0.5),
        np.array([4.0, 1.0, 0.0, 1.0]),
    )
    curve = qini(seen, np.array([4.0, 3.0, 2.0, 1.0]), resamples=2, points=5)
    assert curve.gain.tolist() == pytest.approx([0.0, 2.0, 1.5, 1.5, 1.0])
    assert curve.area[0] == pytest.approx((0 / 2 + 2 + 1.5 + 1.5 + 1.0 / 2) / 4 - 0.5)
