"""Plain and distinct names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from retinue.features import CATALOGUE
from retinue.options import SegmentOptions
from retinue.segments.naming import Portrait, distinct_names, plain_name, sets_apart
from retinue.segments.traits import TRAITS, Choice

CHOICES = [Choice(trait, trait.columns[0]) for trait in TRAITS]
TYPICAL = Portrait(
    orders=4.0,
    spend_rank=0.5,
    orders_rank=0.5,
    silence=1.0,
    age_days=400.0,
    discount_above_base=0.0,
    returns_above_base=0.0,
)


@pytest.mark.parametrize(
    ("portrait", "name"),
    [
        (TYPICAL, "Regular buyers, active"),
        (replace(TYPICAL, orders=9.0, orders_rank=0.9, spend_rank=0.9), "Frequent big spenders, active"),
        (
            replace(TYPICAL, orders=1.0, silence=5.0, discount_above_base=0.4),
            "One-time bargain buyers, long silent",
        ),
        (replace(TYPICAL, orders=2.0, spend_rank=0.1, silence=2.0), "Occasional small spenders, cooling"),
        (replace(TYPICAL, age_days=30.0, orders=1.0), "One-time buyers, new"),
        (replace(TYPICAL, returns_above_base=0.3, silence=9.0), "Regular buyers who return a lot, long gone"),
        (replace(TYPICAL, orders=None, silence=None, age_days=None), "Buyers"),
    ],
)
def test_worked_names(portrait: Portrait, name: str) -> None:
    assert plain_name(portrait, SegmentOptions()) == name


def test_equal_names_are_told_apart_by_the_widest_trait() -> None:
    centroids = np.zeros((3, len(CHOICES)))
    centroids[:, 1] = [1.0, -1.0, -1.2]  # spend
    centroids[:, 3] = [0.0, 0.5, -0.4]  # silence
    names = distinct_names(["Regular buyers"] * 3, centroids, CHOICES, set())
    assert names == [
        "Regular buyers, with higher spend",
        "Regular buyers, with lower spend and a longer silence",
        "Regular buyers, with lower spend and a recent order",
    ]


def test_no_phrase_is_said_twice_of_one_segment() -> None:
    centroids = np.zeros((3, len(CHOICES)))
    centroids[:, 1] = [1.0, -1.0, -1.6]  # spend
    centroids[:, 3] = [0.0, 0.2, -0.2]  # silence
    names = distinct_names(["Buyers"] * 3, centroids, CHOICES, set())
    assert names[2] == "Buyers, with lower spend and a recent order"


@given(
    centroids=arrays(np.float64, (6, len(CHOICES)), elements=st.sampled_from([-1.0, 0.0, 0.5])),
    names=st.lists(st.sampled_from(["A", "B"]), min_size=6, max_size=6),
)
def test_names_are_always_distinct(centroids: np.ndarray, names: list[str]) -> None:
    done = distinct_names(names, centroids, CHOICES, {"A"})
    assert len({*done, "A"}) == 7
    assert all(new.startswith(old) for new, old in zip(done, names, strict=True))


def test_what_sets_apart_is_measured_from_the_mean_customer() -> None:
    centroids = np.zeros((2, len(CHOICES)))
    centroids[:, 0] = [2.0, 0.0]
    assert sets_apart(centroids, np.array([50.0, 50.0]), CHOICES) == ["more orders", "fewer orders"]
    assert sets_apart(centroids, np.array([1.0, 99.0]), CHOICES) == ["more orders", ""]


def test_traits_are_features_of_the_catalogue() -> None:
    known = {feature.name for feature in CATALOGUE}
    assert {column for trait in TRAITS for column in trait.columns} <= known
