"""A fitted rung's log odds of churn, member by member, read again and again on changed features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product

import polars as pl

from retinue.forecasting.blend import Blend
from retinue.forecasting.calibration import Recalibrated
from retinue.forecasting.outlook import Array, Law, Predictor, logit
from retinue.forecasting.trees import FIRST_DAYS, Trees, matrix
from retinue.forecasting.zero_shot import ZeroShot

Reader = Callable[[pl.DataFrame], Array]


def churn_readers(predictor: Predictor, buyers: pl.DataFrame, horizon_days: int) -> list[Reader]:
    """For each member (seed) of a rung: features in, log odds of churn out, (rows,).

    Histories stay those of `buyers`: only features that no law reads (orders, recency, spend) may be changed, so that
    laws and the base model, which read histories alone, are asked once.

    Args:
        predictor: fitted.
        buyers: the features that will be changed; rows and their order stay.
        horizon_days: of the churn.
    """
    match predictor:
        case Recalibrated(inner, by):
            return [
                partial(_shifted, one, -by.log_odds) for one in churn_readers(inner, buyers, horizon_days)
            ]
        case Blend(one, other, weight):
            sides = (churn_readers(side, buyers, horizon_days) for side in (one, other))
            return [partial(_mixed, a, b, weight) for a, b in _paired(*sides)]
        case Trees():
            return _of_trees(predictor, buyers, horizon_days)
        case Law() | ZeroShot():
            said = _read(predictor, horizon_days, buyers)
            return [lambda changed: said]
    return [partial(_read, predictor, horizon_days)]


def _read(predictor: Predictor, horizon_days: int, buyers: pl.DataFrame) -> Array:
    return logit(predictor.outlook(buyers, [horizon_days], 0.0).p_churn[0])


def _shifted(one: Reader, by: float, buyers: pl.DataFrame) -> Array:
    return one(buyers) + by


def _mixed(one: Reader, other: Reader, weight: float, buyers: pl.DataFrame) -> Array:
    return (1 - weight) * one(buyers) + weight * other(buyers)


def _paired(one: list[Reader], other: list[Reader]) -> list[tuple[Reader, Reader]]:
    """Members side by side where there are as many, else each with the only other one."""
    if len(one) == len(other):
        return list(zip(one, other, strict=True))
    return list(product(one, other))


def _of_trees(trees: Trees, buyers: pl.DataFrame, horizon_days: int) -> list[Reader]:
    first = trees.first.outlook(buyers, FIRST_DAYS, 0.0)
    start = _read(trees.first, horizon_days, buyers)

    def read(one: Trees, changed: pl.DataFrame) -> Array:
        return start - one.boosted.order_corrections(matrix(changed, one.columns, first))

    return [
        partial(read, replace(trees, boosted=replace(trees.boosted, members=(member,))))
        for member in trees.boosted.members
    ]
