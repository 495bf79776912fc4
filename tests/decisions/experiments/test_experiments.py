"""Design, assignment and analysis of experiments, against simulation."""

from __future__ import annotations

import io
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from retinue.decisions.experiments.analyse import Found, Metric, analyse, corrected_p, retention_return
from retinue.decisions.experiments.assign import assign
from retinue.decisions.experiments.design import Past, customers_needed, designs, smallest_effect
from retinue.experiment import _check_arms
from retinue.options import Options
from retinue.reporting.terminal import show_analysis
from retinue.schema import InputError

START = datetime(2023, 1, 1, tzinfo=UTC)
MONTH = (START, START + timedelta(days=30))
HALVES = {"control": 0.5, "treated": 0.5}


def people(count: int, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    tier = rng.choice(["high", "low", "middle"], count, p=[0.1, 0.6, 0.3])
    return pl.DataFrame({"customer_id": [f"c{i:06d}" for i in range(count)], "tier": tier})


def test_each_stratum_has_its_shares_to_within_a_customer() -> None:
    arms = {"control": 0.2, "call": 0.3, "mail": 0.5}
    made = assign(people(3_001), "winback", arms, MONTH, ["tier"])
    for (_, arm), part in made.group_by("stratum", "arm"):
        size = made.filter(pl.col("stratum") == part["stratum"][0]).height
        assert abs(part.height - arms[str(arm)] * size) <= 1
        assert part["propensity"].unique().to_list() == [arms[str(arm)]]


def test_small_strata_are_drawn_fairly() -> None:
    """A thousand strata of one customer: half of them in each arm, not all in the first."""
    alone = pl.DataFrame(
        {"customer_id": [f"c{i}" for i in range(1_000)], "tier": [f"t{i}" for i in range(1_000)]}
    )
    made = assign(alone, "winback", HALVES, MONTH, ["tier"])
    assert Counter(made["arm"].to_list())["treated"] == pytest.approx(500, abs=70)


def test_assigned_again_it_is_the_same_whatever_the_order_and_who_came_since() -> None:
    once = assign(people(500), "winback", HALVES, MONTH, ["tier"])
    assert once.equals(assign(people(500).reverse(), "winback", HALVES, MONTH, ["tier"]))
    later = assign(people(600), "winback", HALVES, MONTH, ["tier"], once)
    assert later.height == 600
    assert once.equals(later.join(once, on="customer_id", how="semi"))
    other = assign(people(500), "other", HALVES, MONTH, ["tier"])
    assert 150 < (other["arm"] == once["arm"]).sum() < 350  # another name is another draw


def test_nobody_is_in_two_experiments_at_a_time() -> None:
    first = assign(people(400).head(150), "first", HALVES, MONTH)
    at_once = assign(
        people(400), "second", HALVES, (START + timedelta(days=10), START + timedelta(days=40)), (), first
    )
    assert at_once.height == 250
    afterwards = assign(people(400), "third", HALVES, (MONTH[1], MONTH[1] + timedelta(days=30)), (), first)
    assert afterwards.height == 400


@pytest.mark.parametrize(
    "arms", [{"control": 1.0}, {"control": 0.5, "treated": 0.4}, {"control": 0.0, "treated": 1.0}]
)
def test_arms_that_are_none(arms: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"two or more shares above 0 that sum to 1"):
        assign(people(10), "x", arms, MONTH)


def test_strange_customers_are_refused() -> None:
    with pytest.raises(InputError, match=r"there is no 'colour'; there are customer_id, tier"):
        assign(people(10), "x", HALVES, MONTH, ["colour"])
    with pytest.raises(InputError, match=r"3 customers stand there twice"):
        assign(pl.concat([people(10), people(3)]), "x", HALVES, MONTH)


def outcomes(count: int, effect: float, seed: int) -> pl.DataFrame:
    """Spend that a forecast explains to about half of its variance, and an effect on the treated."""
    rng = np.random.default_rng(seed)
    foretold = rng.gamma(1.0, 10.0, count)
    treated = np.arange(count) % 2 == 1
    spend = foretold + rng.normal(0, 10, count) + effect * treated
    return pl.DataFrame(
        {
            "customer_id": [f"c{i}" for i in range(count)], "arm": np.where(treated, "treated", "control"),
            "stratum": np.where(rng.random(count) < 0.5, "a", "b"), "margin": spend, "foretold": foretold,
        }
    )  # fmt: skip


CUPED = (Metric("margin", "margin", "foretold"),)


def test_the_power_of_a_design_is_the_share_of_simulated_experiments_that_find_it() -> None:
    past = outcomes(4_000, 0.0, 999)
    of_past = Past(past["margin"].to_numpy(), past["foretold"].to_numpy())
    effect = smallest_effect(of_past, 500, 500, 0.8, 0.05)
    found = [
        analyse(
            outcomes(1_000, effect, seed).with_columns(pl.lit("all").alias("stratum")),
            "control",
            HALVES,
            CUPED,
        ).effects.filter(pl.col("group") == "all")["p_value"][0]
        for seed in range(120)
    ]
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.8, abs=0.11)
    assert customers_needed(of_past, effect, 0.5, 0.8, 0.05) == pytest.approx(1_000, abs=4)


def test_the_forecast_as_covariate_cuts_the_variance_it_explains() -> None:
    rows = outcomes(6_000, 1.0, 1)
    plain = analyse(rows, "control", HALVES, (Metric("margin", "margin"),)).effects.row(0, named=True)
    with_it = analyse(rows, "control", HALVES, CUPED).effects.row(0, named=True)
    explained = np.corrcoef(rows["margin"], rows["foretold"])[0, 1] ** 2
    width = [row["effect_upper"] - row["effect_lower"] for row in (plain, with_it)]
    assert (width[1] / width[0]) ** 2 == pytest.approx(1 - explained, rel=0.05)
    assert with_it["effect_lower"] < 1.0 < with_it["effect_upper"]
    design = designs(
        Past(rows["margin"].to_numpy(), rows["foretold"].to_numpy()),
        {"control": 10, "t": 10},
        "control",
        0.8,
        0.05,
    )
    assert design["explained"][0] == pytest.approx(explained)


def test_aa_tests_raise_few_false_alarms() -> None:
    alarms = [
        analyse(
            outcomes(400, 0.0, seed).with_columns(pl.lit("all").alias("stratum")), "control", HALVES, CUPED
        ).effects.filter(pl.col("group") == "all")["p_value"][0]
        < 0.05
        for seed in range(150)
    ]
    assert np.mean(alarms) == pytest.approx(0.05, abs=0.053)


def test_an_early_look_asks_for_more() -> None:
    rows = outcomes(2_000, 1.5, 3)
    last = analyse(rows, "control", HALVES, CUPED, (1.0,)).effects.row(0, named=True)
    early = analyse(rows, "control", HALVES, CUPED, (0.25,)).effects.row(0, named=True)
    ratio = (early["effect_upper"] - early["effect_lower"]) / (last["effect_upper"] - last["effect_lower"])
    assert ratio == pytest.approx(4.333 / 1.96, rel=0.01)  # O'Brien–Fleming at a quarter


def test_a_broken_split_is_told() -> None:
    rows = outcomes(4_000, 0.0, 4)
    assert analyse(rows, "control", HALVES, CUPED).is_sound
    lost = rows.filter((pl.col("arm") == "control") | (pl.int_range(pl.len()) % 20 > 3))
    assert not analyse(lost, "control", HALVES, CUPED).is_sound


def test_the_return_is_margin_less_cost_over_cost() -> None:
    effects = analyse(outcomes(2_000, 3.0, 5), "control", HALVES, CUPED).effects
    row = effects.filter(pl.col("group") == "all").row(0, named=True)
    paid = retention_return(effects, "treated", "margin", 500.0)
    assert paid.margin[0] == pytest.approx(row["effect"] * 1_000)
    assert paid.roi[0] == pytest.approx((row["effect"] * 1_000 - 500) / 500)
    assert paid.roi[1] < paid.roi[0] < paid.roi[2]


def test_many_groups_are_corrected_for_and_tiny_ones_left_out() -> None:
    rows = outcomes(2_000, 0.5, 6).with_columns(
        pl.when(pl.int_range(pl.len()) < 20).then(pl.lit("tiny")).otherwise("stratum").alias("stratum")
    )
    effects = analyse(rows, "control", HALVES, CUPED).effects
    groups = effects.filter(pl.col("group") != "all")
    assert sorted(groups["group"]) == ["a", "b"]
    low = groups["p_value"].min()
    assert isinstance(low, float)
    assert corrected_p(effects)["p_value"].min() == pytest.approx(min(1.0, 2 * low))


def test_a_metric_that_never_varies_has_no_effect() -> None:
    rows = outcomes(200, 0.0, 7).with_columns(pl.lit(0.0).alias("margin"))
    row = analyse(rows, "control", HALVES, CUPED).effects.row(0, named=True)
    assert (row["effect"], row["p_value"]) == (0.0, 1.0)


def test_too_few_or_no_control_are_told() -> None:
    with pytest.raises(InputError, match=r"arm 'control' has 10 customers; at least 30"):
        analyse(outcomes(20, 0.0, 8), "control", HALVES, CUPED)
    with pytest.raises(InputError, match=r"no arm 'nobody' to compare with; there are control, treated"):
        analyse(outcomes(200, 0.0, 8), "nobody", HALVES, CUPED)


def test_one_experiment_has_one_window() -> None:
    once = assign(people(100), "winback", HALVES, MONTH)
    with pytest.raises(InputError, match=r"is assigned from 2023-01-01 to 2023-01-31, and outcomes"):
        assign(
            people(120), "winback", HALVES, (START + timedelta(days=7), START + timedelta(days=37)), (), once
        )


def test_strata_are_flagged_at_the_level_of_the_look() -> None:
    """At .05 in each of ten looks one experiment in five without effect had a false alarm."""
    found = analyse(outcomes(400, 0.0, 3), "control", HALVES, CUPED, (0.1, 0.5))
    strata = corrected_p(found.effects)

    def flagged(p_value: float) -> bool:
        doctored = strata.with_columns(pl.lit(p_value).alias("p_value"))
        out = Console(record=True, width=140, file=io.StringIO())
        show_analysis(out, Path("experiment"), Found(found, doctored, {}, 1.0), Options())
        return "effects by stratum" in out.export_text()

    assert found.level < 0.05
    assert flagged(found.level * 0.9)
    assert not flagged((found.level + 0.05) / 2)


def test_an_arm_that_nobody_was_drawn_for_is_named_with_the_share_it_needs() -> None:
    """cases/60-exp: a traceback at the analysis."""
    made = assign(people(300), "tiny", {"control": 0.5, "a": 0.5}, MONTH)
    with pytest.raises(
        InputError, match=r"experiments\.arms\.b=0\.001: nobody of the 300 .* Give it 0\.1 or more"
    ):
        _check_arms(made, {"control": 0.5, "a": 0.499, "b": 0.001})
    _check_arms(made, {"control": 0.5, "a": 0.5})


def test_an_effect_of_nothing_names_its_option() -> None:
    with pytest.raises(InputError, match=r"experiments\.effect=0: must not be 0"):
        customers_needed(Past(np.arange(10.0), np.ones(10)), 0.0, 0.5, 0.8, 0.05)
