from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from retinue.accel.engine import cudf_engine
from retinue.features import CATALOGUE, Family, features_at
from scripts import gpu_plan
from tests.features.histories import CUTOFF, ZONE, history, table
from tests.parity import gates
from tests.parity.gates import Verdict, forgotten, judged, verdicts
from tests.parity.queries import (
    ONE_PARTITION,
    events,
    function_of,
    lazy_functions,
    made_events,
    queries,
    unstreamable,
)
from tests.parity.translation import ROWS_PER_PARTITION, streaming_errors, translation_errors

needs_cudf = pytest.mark.skipif(
    importlib.util.find_spec("cudf_polars") is None, reason="cudf-polars is not installed: see make gpu-plan"
)


def test_the_walk_finds_every_feature_and_family_and_no_name_twice(tmp_path: Path) -> None:
    names = [name for name, _ in queries(tmp_path)]
    of_features = {name.split(": ")[1] for name in names if function_of(name) == "features.query.features_at"}
    assert {feature.name for feature in CATALOGUE} | {f"family {f.value}" for f in Family} <= of_features
    assert len(set(names)) == len(names)


def test_every_public_function_that_makes_a_query_is_among_them(tmp_path: Path) -> None:
    names = {name for name, _ in queries(tmp_path)}
    assert forgotten(names) == []
    assert {function_of(name) for name in names} == lazy_functions()
    left_out = {"events.timeline.history", *ONE_PARTITION}
    assert forgotten(names - left_out) == sorted(left_out)


def test_the_walk_sees_a_new_function_or_method(tmp_path: Path) -> None:
    (tmp_path / "events" / "deep").mkdir(parents=True)
    (tmp_path / "events" / "deep" / "new.py").write_text(
        "def late(events: pl.LazyFrame) -> pl.LazyFrame: ...\n"
        "def _inner(events: pl.LazyFrame) -> pl.LazyFrame: ...\n"
        "def table(events: pl.LazyFrame) -> pl.DataFrame: ...\n"
        "def unsaid(events): ...\n"
        "class Base:\n"
        "    @property\n"
        "    def known(self) -> pl.LazyFrame: ...\n"
        "    def parts(self) -> 'tuple[LazyFrame, ...]': ...\n"
    )
    assert lazy_functions(tmp_path) == {
        "events.deep.new.late",
        "events.deep.new.Base.known",
        "events.deep.new.Base.parts",
    }


def test_each_query_runs_and_says_something(tmp_path: Path) -> None:
    found = dict(queries(tmp_path))
    assert made_events().height > 3 * ROWS_PER_PARTITION
    for name in ("a bare base", "all features", "of a store", "family calendar"):
        assert found[f"features.query.features_at: {name}"].collect().height == 120
    others = [query for name, query in found.items() if function_of(name) != "features.query.features_at"]
    assert all(query.collect().height for query in others)


def test_a_listed_query_that_streams_is_a_fault_as_is_an_unlisted_one_that_does_not() -> None:
    assert Verdict("a", [], [], None).fault == ""
    assert Verdict("a", [], ["needs one"], "small").fault == ""
    assert "list" in Verdict("a", [], [], "small").fault
    assert "needs one" in Verdict("a", [], ["needs one"], None).fault
    assert "unknown" in Verdict("a", ["unknown"], [], "small").fault


def test_a_gate_that_lets_all_through_is_blind_and_fails_the_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for gate in ("translation_errors", "streaming_errors"):
        monkeypatch.setattr(gates, gate, lambda query: [])
    assert gates.blind_to() == ["a list operation", *unstreamable()]
    assert gpu_plan.main() == 1
    assert "blind" in capsys.readouterr().out


def test_a_fault_fails_the_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_plan, "blind_to", list)
    monkeypatch.setattr(gates, "translation_errors", lambda query: [])
    monkeypatch.setattr(gates, "streaming_errors", lambda query: [])
    assert gpu_plan.main() == 1  # the list is stale where everything streams
    assert capsys.readouterr().out.count("FAULT") == len(ONE_PARTITION)


@needs_cudf
def test_the_gates_see() -> None:
    assert gates.blind_to() == []
    assert streaming_errors(
        events().head(ROWS_PER_PARTITION).collect().lazy()
    )  # one partition proves nothing


@needs_cudf
def test_every_query_translates_and_streams_or_is_listed(tmp_path: Path) -> None:
    assert {v.name: v.fault for v in verdicts(tmp_path) if v.fault} == {}


@needs_cudf
def test_the_list_is_held_in_both_directions() -> None:
    median, rows = unstreamable()["median"], events()
    assert translation_errors(median) == []
    faults = [v.fault for v in judged(iter([("a", median), ("b", rows)]), {"b": "a stale reason"})]
    assert all(faults)
    assert not any(v.fault for v in judged(iter([("a", median), ("b", rows)]), {"a": "a reason"}))


@pytest.mark.gpu
def test_the_gpu_says_what_the_cpu_says() -> None:
    query = features_at(table(history(5, customers=40)).lazy(), CUTOFF, ZONE)
    got = query.collect(engine=cudf_engine())
    assert_frame_equal(got, query.collect(), rel_tol=1e-9, abs_tol=1e-12)
