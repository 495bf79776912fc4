"""Options: from words to types, and every mistake told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinue.config import as_yaml, option_lines, presets, resolve
from retinue.options import Encoder, Rung, Strategy
from retinue.schema import InputError
from tests.golden.freeze_options import option_tree

GOLDEN = Path(__file__).parent / "golden" / "options.txt"


def test_the_door_that_batch_jobs_call() -> None:
    options = resolve(
        [
            "data=files",
            "data.path=orders.parquet",
            "data.columns.customer_id=cid",
            "data.columns.event_time=day",
            "data.columns.amount=value",
            "cutoff=2014-12-31",
            "horizon_days=365",
            "output=out/",
        ]
    )
    assert options.data.path == "orders.parquet"
    assert (options.data.columns.customer_id, options.data.columns.amount) == ("cid", "value")
    assert (options.cutoffs, options.horizons, options.folder) == (["2014-12-31"], [365], Path("out"))


def test_paths_and_column_names_may_hold_anything() -> None:
    options = resolve(
        ["data.path=a b,c(1)'x=[2].csv", "data.columns.amount=Unit Price (GBP)", "data.paths.visit=v,1.csv"]
    )
    assert options.data.path == "a b,c(1)'x=[2].csv"
    assert options.data.columns.amount == "Unit Price (GBP)"
    assert options.data.paths == {"visit": "v,1.csv"}


def test_lists_of_cutoffs_and_horizons() -> None:
    options = resolve(
        ["cutoff=[2014-06-30,2014-12-31T18:00]", "horizon_days=[90,30,90]", "forecaster=bg_nbd"]
    )
    assert options.cutoffs == ["2014-06-30", "2014-12-31T18:00"]
    assert options.horizons == [30, 90]
    assert options.forecaster is Rung.bg_nbd


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("cutof=2014-12-31", "Did you mean cutoff?"),
        ("data.columns.custommer_id=a", "Did you mean data.columns.customer_id?"),
        ("data=foo", "there are cdnow"),
        ("model=lstm", "there are gru, transformer"),
        ("trainer=tpu", "there are cpu, ddp, fsdp, gpu"),
        ("model.width=36", "multiple of 2 × model.heads"),
        ("training.buckets=0", "between 1"),
        ("horizon_days=soon", "whole days"),
        ("horizon_days=0", "whole days"),
        ("horizon_days=true", "whole days"),
        ("engine=tpu", "expected one of"),
        ("shards=many", "could not be converted"),
        ("value.margin_rate=2", "between 0 and 1"),
        ("decisions.risk_threshold=-1", "between 0 and 1"),
        ("seed=[1", "seed"),
        ("cutoff", "not key=value"),
        ("--cutoff=1", "not key=value"),
        ("=3", "does not exist"),
    ],
)
def test_a_mistake_is_told_with_its_cure(word: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve([word])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_preset_resolves_and_survives_a_round_trip() -> None:
    assert presets("data") == ["cdnow", "complete_journey", "files", "online_retail"]
    for name in presets("data"):
        options = resolve([f"data={name}"])
        assert options.data.name == name
        assert f"source: {name}" in as_yaml(options)


def test_presets_of_model_and_trainer() -> None:
    options = resolve(["model=transformer", "trainer=ddp", "training.steps=7", "model.width=32"])
    assert (options.model.encoder, options.model.layers, options.model.width) == (Encoder.transformer, 2, 32)
    assert (options.trainer.devices, options.training.steps) == (2, 7)
    with pytest.raises(InputError, match=r"cannot go with trainer\.recompute=true"):
        resolve(["trainer.compile=true", "trainer.recompute=true"])
    assert resolve(["trainer=fsdp"]).trainer.strategy is Strategy.fsdp
    assert resolve(["trainer=ddp"]).trainer.strategy is Strategy.ddp


def test_the_option_tree_changes_only_on_purpose() -> None:
    assert option_tree() == GOLDEN.read_text(), "meant? then freeze it: python -m tests.golden.freeze_options"


def test_every_option_says_what_it_is() -> None:
    assert all(len(line.help) > 3 for line in option_lines())
