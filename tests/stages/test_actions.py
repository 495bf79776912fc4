"""From the command line: decide, export, and an experiment from design to analysis."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retinue.cli import main
from retinue.worlds.kinds import Kind, spec_of
from retinue.worlds.spec import Campaigns
from retinue.worlds.world import simulate, write


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated base of 900 customers, half of whom each campaign reaches."""
    from dataclasses import replace

    folder = tmp_path_factory.mktemp("actions")
    spec = replace(
        spec_of(Kind.promotions, 500),
        campaigns=Campaigns(every_days=150, first_day=120, lift=2.0, discount=0.0),
    )
    write(simulate(spec, 900, 0), folder / "world")
    return folder


def words(shop: Path, *more: str) -> list[str]:
    return [
        f"data.path={shop}/world/events.parquet", "data.time_zone=UTC", "cutoff=2023-10-31", "horizon_days=60",
        "forecaster=pareto_nbd", "segments.bootstraps=2", "segments.max_segments=3", f"output={shop}/out", *more,
    ]  # fmt: skip


def test_decide_prints_what_is_done_and_that_it_is_assumed(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["decide", *words(shop, "budget=30")]) == 0
    said = capsys.readouterr().out
    for word in ("all actions", "Why no action", "More of it would bring", "rest on assumed effects"):
        assert word in said
    table = pl.read_parquet(shop / "out" / "decisions.parquet")
    assert 0 < table["expected_cost"].sum() <= 30 + 1e-9
    assert set(table["effect_source"].drop_nulls()) == {"assumed"}
    assert pl.read_parquet(shop / "out" / "budget_curve.parquet").height == 12


def test_a_lower_budget_decides_again_and_nothing_else(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["decide", *words(shop, "budget=30")]) == 0
    capsys.readouterr()
    assert main(["decide", *words(shop, "budget=3")]) == 0
    told = capsys.readouterr().err
    assert told.count("unchanged, kept") == 4
    assert pl.read_parquet(shop / "out" / "decisions.parquet")["expected_cost"].sum() <= 3 + 1e-9


def test_a_later_cutoff_says_who_changed_quadrant(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a folder of its own: two cutoffs, one after the other; the first forecasts are kept in the ledger."""
    asked = [word for word in words(shop, f"output={shop}/moving") if word != f"output={shop}/out"]
    assert main(["decide", *(w.replace("2023-10-31", "2023-08-31") for w in asked)]) == 0
    first = pl.read_parquet(shop / "moving" / "decisions.parquet").select("customer_id", "quadrant")
    assert pl.read_parquet(shop / "moving" / "quadrant_moves.parquet").is_empty()
    assert "changed quadrant" not in capsys.readouterr().out
    assert main(["decide", *asked]) == 0
    assert "who changed quadrant since the forecasts before" in capsys.readouterr().out
    now = pl.read_parquet(shop / "moving" / "decisions.parquet").select("customer_id", "quadrant")
    both = first.join(now, on="customer_id", suffix=" now").filter(
        pl.col("quadrant") != pl.col("quadrant now")
    )
    moved = pl.read_parquet(shop / "moving" / "quadrant_moves.parquet")
    assert moved["customer_id"].to_list() == both["customer_id"].sort().to_list() != []


def test_a_policy_is_judged_by_what_was_exported(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Decisions with exploration are exported; the very same policy earns what was done, one that does nothing less the rest."""
    asked = [*[word for word in words(shop) if not word.startswith("output=")], f"output={shop}/logged"]
    assert main(["policy", *asked]) == 1
    assert "no decisions of 2023-10-31 are logged" in capsys.readouterr().err
    assert main(["export", *asked, "decisions.exploration=0.5", "export.assume_consent=true"]) == 0
    log = pl.read_parquet(shop / "logged" / "exports" / "log" / "*.parquet")
    assert log["explored"].sum() > 0.1 * log.height
    capsys.readouterr()
    assert main(["policy", *asked]) == 0
    same = capsys.readouterr().out
    assert main(["policy", *asked, "actions=none"]) == 0
    nothing = capsys.readouterr().out
    for said in (same, nothing):
        for method in ("what was done", "inverse propensity", "self-normalised", "doubly robust"):
            assert method in said
    assert "nothing can be said" not in same

    def amounts(said: str) -> int:
        line = next(line for line in said.splitlines() if "inverse propensity" in line)
        return int(line.split()[-1].replace(",", ""))

    # the log is nearer to itself than to a policy that does nothing
    assert log.height >= amounts(same) > amounts(nothing) > 10


def test_export_writes_a_file_per_channel(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", *words(shop, "budget=30", "export.assume_consent=true")]) == 0
    assert "export: email:" in capsys.readouterr().out
    assert (shop / "out" / "exports" / "email.csv").is_file()


def test_an_experiment_from_design_to_analysis(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = words(
        shop,
        "experiments.name=winback",
        "experiments.days=40",
        "experiments.cost=0.5",
        "experiments.effect=2",
    )
    assert main(["experiment", "design", *asked]) == 0
    said = capsys.readouterr().out
    assert "Smallest effect" in said
    assert "in 40 days takes" in said
    design = pl.read_parquet(shop / "out" / "experiments" / "winback" / "design.parquet")
    assert (design["smallest_effect_cuped"] <= design["smallest_effect"]).all()
    assert main(["experiment", "assign", *asked]) == 0
    folder = shop / "out" / "experiments" / "winback"
    once = pl.read_parquet(folder / "assignments.parquet")
    assert main(["experiment", "assign", *asked]) == 0
    assert pl.read_parquet(folder / "assignments.parquet").equals(once)
    assert main(["decide", *words(shop)]) == 0
    decided = pl.read_parquet(shop / "out" / "decisions.parquet")
    both = decided.join(once, on="customer_id", how="semi")
    assert both.height == once.height > 0
    assert set(both["action"]) == {"none"}
    assert "in a running experiment: treated by its arm" in set(both["binding"])
    capsys.readouterr()
    assert main(["experiment", "analyse", *asked]) == 0
    said = capsys.readouterr().out
    assert "of margin more" in said
    effects = pl.read_parquet(folder / "effects.parquet")
    assert set(effects["metric"]) >= {
        "margin",
        "orders",
        "kept (any order)",
        "kept in the second half",
        "clv at the end",
    }
    events = pl.read_parquet(shop / "world" / "events.parquet")
    start = once["starts"][0]
    window = events.filter(
        (pl.col("event_time") > start)
        & (pl.col("event_time") <= once["ends"][0])
        & (pl.col("event_type") == "order")
    )
    spend = once.join(
        window.group_by("customer_id").agg(pl.col("amount").sum()), on="customer_id", how="left"
    ).fill_null(0.0)
    control = spend.filter(pl.col("arm") == "control")["amount"].to_numpy()
    row = effects.filter((pl.col("metric") == "margin") & (pl.col("group") == "all")).to_dicts()[0]
    assert row["control_mean"] == pytest.approx(np.mean(control), rel=0.1)  # adjusted by the covariate
    assert json.loads((folder / "looks.json").read_text()) == [1.0]
    assert json.loads((folder / "result.json").read_text())["cost"] == pytest.approx(0.5 * row["treated"])
    shutil.rmtree(folder)  # or nobody in this shop would get anything in the tests that follow


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["experiment"], "say what to do with it first"),
        (["experiment", "stop"], "say what to do with it first"),
        (
            ["experiment", "assign", "experiments.name=early", "experiments.starts=2023-09-01"],
            "lies before the cutoff",
        ),
        (["experiment", "analyse", "experiments.name=nothing"], "nothing is assigned"),
        (
            [
                "experiment",
                "assign",
                "experiments.control=nobody",
                "experiments.arms.a=0.5",
                "experiments.arms.b=0.5",
            ],
            "is not among",
        ),
        (["decide", "actions.menu.mail.keeps=2"], "must lie between"),
        (["decide", "actions=retale"], "there is no such preset"),
        (["decide", "decisions.floors.77=3"], "there is no segment 77"),
        (
            ["decide", "actions.menu.push.effect=measured", "actions.menu.push.campaign=unheard*"],
            "no event of type 'campaign'",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(
    shop: Path, command: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verbs = [word for word in command if "=" not in word]
    assert main([*verbs, *words(shop, *(word for word in command if "=" in word))]) == 1
    said = capsys.readouterr().err
    assert why in said
    assert "Traceback" not in said


def test_an_effect_measured_from_the_base_s_own_campaigns(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every campaign reached half of those who had ordered; its orders are worth more than the mail costs."""
    push = [
        "effect=measured",
        "campaign=campaign-*",
        "everyone_drawn=true",
        "fixed_cost=0.01",
        "channel=push",
    ]
    menu = ["actions=none", "decisions.effect_days=60", *(f"actions.menu.push.{one}" for one in push)]
    assert main(["decide", *words(shop, *menu)]) == 0
    told = json.loads((shop / "out" / "uplift.json").read_text())["push"]
    assert told["treated"] > 200
    assert told["mean"][0] > 2 * told["mean"][1]
    table = pl.read_parquet(shop / "out" / "decisions.parquet")
    assert set(table.filter(pl.col("action") == "push")["effect_source"]) == {"measured"}
    assert "rest on assumed effects" not in capsys.readouterr().out
