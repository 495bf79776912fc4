from __future__ import annotations

import importlib.util

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from retinue.features import CATALOGUE, Family, features_at
from tests.features.histories import CUTOFF, ZONE, history, table
from tests.parity.queries import queries, untranslatable
from tests.parity.translation import translation_errors


def test_the_walk_finds_every_feature_and_family_and_each_query_runs() -> None:
    found = dict(queries())
    assert {f"feature {feature.name}" for feature in CATALOGUE} | {
        f"family {f.value}" for f in Family
    } <= set(found)
    assert {"history", "future", "realised", "all features"} <= set(found)
    for name in ("history", "realised", "features of a bare base", "all features"):
        assert found[name].collect().is_empty()


@pytest.mark.skipif(
    importlib.util.find_spec("cudf_polars") is None, reason="cudf-polars is not installed: see make gpu-plan"
)
def test_every_query_translates_to_cudf() -> None:
    assert translation_errors(untranslatable())
    assert {name: errors for name, query in queries() if (errors := translation_errors(query))} == {}


@pytest.mark.gpu
def test_the_gpu_says_what_the_cpu_says() -> None:
    query = features_at(table(history(5, customers=40)).lazy(), CUTOFF, ZONE)
    got = query.collect(engine=pl.GPUEngine(raise_on_fail=True))
    assert_frame_equal(got, query.collect(), rel_tol=1e-9, abs_tol=1e-12)
