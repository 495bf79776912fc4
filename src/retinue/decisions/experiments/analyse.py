"""What an experiment found: who was really compared, the effect with its interval, where it was larger, whether it paid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import tea_tasting as tea
from numpy.typing import NDArray

from retinue.decisions.experiments.sequential import adjusted_level
from retinue.schema import (
    ARM,
    CUSTOMER_ID,
    EFFECT,
    EFFECT_LOWER,
    EFFECT_UPPER,
    EXPERIMENT_EFFECTS,
    METRIC,
    P_VALUE,
    STRATUM,
    InputError,
)

Array = NDArray[np.float64]
LEAST_PER_ARM = 30
MISMATCH = 1e-3  # of the chance of arms of these sizes: below it the split itself is broken


@dataclass(frozen=True)
class Metric:
    """Something that is compared.

    Attributes:
        name: as the table has it.
        outcome: column of the outcome per customer.
        covariate: column known before assignment, or None.
    """

    name: str
    outcome: str
    covariate: str | None = None


@dataclass(frozen=True)
class Analysis:
    """What was found.

    Attributes:
        effects: the `experiment_effects` table: treated arm × metric × group.
        mismatch: p-value of the arms' sizes against the plan (sample-ratio check).
        level: of the intervals, two-sided; below alpha where this is not the only look.
    """

    effects: pl.DataFrame
    mismatch: float
    level: float

    @property
    def is_sound(self) -> bool:
        """Whether the arms have the sizes that were planned."""
        return self.mismatch >= MISMATCH


def analyse(
    rows: pl.DataFrame,
    control: str,
    shares: dict[str, float],
    metrics: Sequence[Metric],
    looks: Sequence[float] = (1.0,),
    alpha: float = 0.05,
) -> Analysis:
    """Compares every treated arm with the control, over all and by stratum.

    Means are compared by Welch's test on outcomes adjusted by the covariate (CUPED); the interval is that of this look.

    Args:
        rows: one per customer: arm, stratum, outcomes and covariates.
        control: name of the arm that got nothing.
        shares: planned share of each arm.
        metrics: what to compare.
        looks: share of the information at each look so far; this one is the last.
        alpha: chance of a false alarm over all looks.

    Raises:
        InputError: an arm with fewer than 30 customers, no control, or a customer twice.
    """
    if twice := rows.height - rows[CUSTOMER_ID].n_unique():
        raise InputError(f"experiment: {twice:,} customers stand there twice; give one row each.")
    sizes = {arm: rows.filter(pl.col(ARM) == arm).height for arm in shares}
    if control not in sizes:
        raise InputError(
            f"experiment: there is no arm '{control}' to compare with; there are {', '.join(sizes)}."
        )
    if few := [arm for arm, size in sizes.items() if size < LEAST_PER_ARM]:
        raise InputError(
            f"experiment: arm '{few[0]}' has {sizes[few[0]]} customers; at least {LEAST_PER_ARM} are needed to say anything."
        )
    level = adjusted_level(looks, alpha)
    found = []
    for arm in shares:
        if arm == control:
            continue
        pair = rows.filter(pl.col(ARM).is_in([arm, control]))
        groups = [
            ("all", pair),
            *((str(key[0]), part) for key, part in pair.group_by(STRATUM, maintain_order=True)),
        ]
        if rows[STRATUM].n_unique() < 2:
            groups = groups[:1]
        for group, part in groups:
            for metric in metrics:
                row = _compare(part, arm, control, metric, level)
                if row is not None:
                    found.append((arm, metric.name, group, *row))
    table = pl.DataFrame(found, schema=EXPERIMENT_EFFECTS.schema, orient="row")
    return Analysis(EXPERIMENT_EFFECTS.check(table), _mismatch(sizes, shares), level)


def _compare(
    part: pl.DataFrame, arm: str, control: str, metric: Metric, level: float
) -> tuple[float, ...] | None:
    """Sizes, means, effect, interval and p-value; None where an arm is too small to say."""
    sizes = [part.filter(pl.col(ARM) == one).height for one in (arm, control)]
    if min(sizes) < LEAST_PER_ARM:
        return None
    columns = [ARM, metric.outcome, *([metric.covariate] if metric.covariate else [])]
    data = part.select(
        pl.col(column).cast(pl.Float64) if column != ARM else (pl.col(ARM) == arm).cast(pl.Int8)
        for column in columns
    )
    flat = float(np.ptp(data[metric.outcome].to_numpy())) == 0
    if flat:
        mean = float(data[metric.outcome][0])
        return (*sizes, mean, mean, 0.0, 0.0, 0.0, 1.0)
    covariate = metric.covariate if metric.covariate and data[metric.covariate].std() else None
    test = tea.Experiment(
        {"it": tea.Mean(metric.outcome, covariate, confidence_level=1 - level)}, variant=str(ARM)
    )
    it = test.analyze(data)["it"]
    return (
        *sizes, float(it.control), float(it.treatment), float(it.effect_size), float(it.effect_size_ci_lower),
        float(it.effect_size_ci_upper), float(it.pvalue),
    )  # fmt: skip


def _mismatch(sizes: dict[str, int], shares: dict[str, float]) -> float:
    """Chance of sizes as far from the plan as these (chi-square)."""
    from scipy.stats import chisquare  # noqa: PLC0415

    total = sum(sizes.values())
    return float(chisquare(list(sizes.values()), [share * total for share in shares.values()]).pvalue)


@dataclass(frozen=True)
class Return:
    """Whether it paid; account currency, over all treated customers.

    Attributes:
        margin: incremental margin, with the ends of its interval.
        cost: of the action.
        roi: (margin - cost) / cost, with the ends of its interval; NaN where it cost nothing.
    """

    margin: tuple[float, float, float]
    cost: float
    roi: tuple[float, float, float]


def retention_return(effects: pl.DataFrame, arm: str, margin_metric: str, cost: float) -> Return:
    """Incremental margin per customer × treated customers, against the cost of the action."""
    row = effects.filter(
        (pl.col(ARM) == arm) & (pl.col(METRIC) == margin_metric) & (pl.col("group") == "all")
    ).to_dicts()[0]
    mean, low, high = (row[name] * row["treated"] for name in (EFFECT, EFFECT_LOWER, EFFECT_UPPER))
    roi = tuple((value - cost) / cost if cost > 0 else float("nan") for value in (mean, low, high))
    return Return((mean, low, high), cost, (roi[0], roi[1], roi[2]))


def corrected_p(effects: pl.DataFrame) -> pl.DataFrame:
    """The effects by group with p-values corrected for how many groups were looked at (Holm 1979)."""
    from statsmodels.stats.multitest import multipletests  # noqa: PLC0415

    groups = effects.filter(pl.col("group") != "all")
    if not groups.height:
        return groups
    return groups.with_columns(
        pl.Series(P_VALUE, multipletests(groups[P_VALUE].to_numpy(), method="holm")[1])
    )


@dataclass(frozen=True)
class Found:
    """What an analysis says, for the terminal and the report.

    Attributes:
        analysis: effects and the check of the arms' sizes.
        by_stratum: effects by stratum with p-values corrected for their number.
        returns: by treated arm, whether it paid.
        observed: share of the window that the data cover.
    """

    analysis: Analysis
    by_stratum: pl.DataFrame
    returns: dict[str, Return]
    observed: float
