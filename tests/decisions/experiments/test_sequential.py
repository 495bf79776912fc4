"""Bounds of repeated looks: against published ones, and by how often they cry wolf."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.decisions.experiments.sequential import adjusted_level, bounds, spent
from retinue.schema import InputError

TENTHS = [k / 10 for k in range(1, 11)]


def test_five_looks_have_the_published_bounds() -> None:
    """Lan and DeMets' O'Brien–Fleming-like spending, as the tables and gsDesign have it."""
    assert bounds([0.2, 0.4, 0.6, 0.8, 1.0]) == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=6e-4)
    assert bounds([0.5, 1.0]) == pytest.approx([2.963, 1.969], abs=6e-4)


def test_one_look_is_the_plain_test() -> None:
    assert bounds([1.0]) == pytest.approx([1.959964], abs=1e-6)
    assert adjusted_level([1.0]) == pytest.approx(0.05, abs=1e-9)


def alarms(looks: int, per_look: int, tests: int, seed: int) -> float:
    """Share of A/A tests on skewed spend, most of it nothing, that cross a bound at any look."""
    rng = np.random.default_rng(seed)
    edge = bounds([(k + 1) / looks for k in range(looks)])
    wolf = np.zeros(tests, bool)
    sums = np.zeros((2, 3, tests))  # arm: count, sum, square
    for look in range(looks):
        for arm in range(2):
            spend = rng.lognormal(2, 0.8, (per_look, tests)) * (rng.random((per_look, tests)) < 0.3)
            sums[arm] += np.stack([np.full(tests, float(per_look)), spend.sum(0), (spend**2).sum(0)])
        mean = sums[:, 1] / sums[:, 0]
        variance = (sums[:, 2] / sums[:, 0] - mean**2) / (sums[:, 0] - 1)
        wolf |= np.abs(mean[0] - mean[1]) / np.sqrt(variance.sum(0)) >= edge[look]
    return float(wolf.mean())


def test_ten_looks_at_ten_thousand_aa_tests_hold_the_error() -> None:
    """5 % ± 0.22 %: at most 5.5 %, and not by never stopping."""
    share = alarms(10, 200, 10_000, 0)
    assert 0.042 <= share <= 0.055


def test_the_plain_bound_at_every_look_would_not_hold_it() -> None:
    rng = np.random.default_rng(1)
    score = np.cumsum(rng.standard_normal((10, 10_000)), axis=0) / np.sqrt(np.arange(1, 11))[:, None]
    assert (np.abs(score) >= 1.96).any(axis=0).mean() > 0.15
    assert (np.abs(score) >= bounds(TENTHS)[:, None]).any(axis=0).mean() == pytest.approx(0.05, abs=0.007)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(0.02, 1.0), min_size=1, max_size=8, unique_by=lambda x: round(x, 2)),
    st.floats(0.005, 0.2),
)
def test_bounds_spend_what_they_may(shares: list[float], alpha: float) -> None:
    looks = sorted(shares)
    edge = bounds(looks, alpha)
    rng = np.random.default_rng(0)
    steps = np.sqrt(np.diff(looks, prepend=0))[:, None]
    score = np.cumsum(rng.standard_normal((len(looks), 20_000)) * steps, axis=0) / np.sqrt(looks)[:, None]
    crossed = (np.abs(score) >= edge[:, None]).any(axis=0).mean()
    told = float(spent(looks[-1], alpha))
    assert crossed == pytest.approx(told, abs=5 * (told * (1 - told) / 20_000) ** 0.5 + 1e-4)


@pytest.mark.parametrize("looks", [[], [0.5, 0.5], [0.8, 0.4], [0.5, 1.2], [0.0, 1.0]])
def test_looks_that_are_none(looks: list[float]) -> None:
    with pytest.raises(InputError, match=r"must be ascending shares"):
        bounds(looks)
