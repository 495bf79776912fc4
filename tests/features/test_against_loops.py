from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest

from retinue.features import CATALOGUE, features_at
from tests.features import slow
from tests.features.histories import CUTOFF, ZONE, Event, history, table


def expected(events: Sequence[Event], cutoff: datetime, zone: str) -> dict[str, dict[str, Any]]:
    ids = sorted({e["customer_id"] for e in events})
    people = {i: slow.Customer([e for e in events if e["customer_id"] == i], cutoff, zone) for i in ids}
    seen = {i: person for i, person in people.items() if person.events}
    return {i: slow.features_of(person, list(seen.values())) for i, person in seen.items()}


def same(got: Any, wanted: Any) -> bool:
    if isinstance(got, float) and wanted is not None:
        return math.isclose(got, wanted, rel_tol=1e-9, abs_tol=1e-9)
    return bool(got == wanted)


@pytest.mark.parametrize("seed", range(25))
def test_every_feature_equals_the_slow_loop(seed: int) -> None:
    events = history(seed)
    rows = {
        row["customer_id"]: row
        for row in features_at(table(events).lazy(), CUTOFF, ZONE).collect().to_dicts()
    }
    wanted = expected(events, CUTOFF, ZONE)
    assert list(rows) == sorted(wanted)
    wrong = [
        (customer, feature.name, rows[customer][feature.name], values[feature.name])
        for customer, values in wanted.items()
        for feature in CATALOGUE
        if not same(rows[customer][feature.name], values[feature.name])
    ]
    assert not wrong


def test_the_loops_know_every_feature_and_no_other() -> None:
    wanted = expected(history(1), CUTOFF, ZONE)
    assert {name for row in wanted.values() for name in row} == {feature.name for feature in CATALOGUE}


def test_the_histories_reach_every_feature() -> None:
    """A feature that is null or constant in all histories would be compared with nothing."""
    values: dict[str, set[Any]] = {feature.name: set() for feature in CATALOGUE}
    for seed in range(25):
        for row in expected(history(seed), CUTOFF, ZONE).values():
            for name, value in row.items():
                values[name].add(value)
    constant = {"cutoff_month", "cutoff_week"}
    assert {name for name, seen in values.items() if len(seen - {None}) < 2} <= constant | {
        "days_to_peak_season"
    }
