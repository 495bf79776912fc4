"""Boosted trees that correct a first forecast: chance of an order, number of orders, value of an order. XGBoost.

The first forecast carries the horizon, the trees see the features only: what it promises at every horizon (churn
falls, orders rise) then holds for the corrected forecast too, also at horizons that no training window
reached.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count

import numpy as np
import xgboost
from numpy.typing import NDArray

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Folds = NDArray[np.int64]

MEMBERS = 3
FOLDS = 5
MOST_ROUNDS = 400
PATIENCE = 25
LEAST_ROWS = 200
MARGIN_DIGITS = 3  # laws agree to 1e-9 on all machines, rounded margins exactly
TREES = {
    "tree_method": "hist",
    "max_depth": 4,
    "eta": 0.1,
    "min_child_weight": 20.0,
    "subsample": 0.7,
    "colsample_bytree": 0.7,
    "lambda": 5.0,
    "max_bin": 128,
    "nthread": 1,  # sums of gradients depend on their number
    "verbosity": 0,
}
ORDER: dict[str, object] = {"objective": "binary:logistic", "eval_metric": "logloss"}
COUNT: dict[str, object] = {
    "objective": "count:poisson",
    "eval_metric": "poisson-nloglik",
    "max_delta_step": 0.7,
}
VALUE: dict[str, object] = {
    "objective": "reg:tweedie",
    "tweedie_variance_power": 1.5,
    "eval_metric": "tweedie-nloglik@1.5",
}


@dataclass(frozen=True)
class Examples:
    """What the trees learn from; one row per customer, cutoff and horizon.

    Attributes:
        matrix: (rows, features), NaN where null.
        first_logit: (rows,) log odds of an order, as first forecast.
        first_log_orders: (rows,) log expected orders, likewise.
        first_log_value: (rows,) log expected net value of an order, likewise; -inf where it is zero.
        orders: (rows,) realised orders.
        spend: (rows,) realised net spend, in the unit of that value.
        fold: (rows,) fifth, 0 to 4, that the row's customer belongs to.
    """

    matrix: Floats
    first_logit: Array
    first_log_orders: Array
    first_log_value: Array
    orders: Array
    spend: Array
    fold: Folds


@dataclass(frozen=True)
class Member:
    """Three boosters; None where there was too little to learn from, which leaves the first forecast as it is."""

    order: xgboost.Booster | None
    count: xgboost.Booster | None
    value: xgboost.Booster | None
    value_level: float

    def corrections(self, matrix: Floats) -> tuple[Array, Array, Array]:
        """What to add to log odds of an order, log expected orders and log value of an order; (rows,) each."""
        value = _margin(self.value, matrix) + np.log(self.value_level)
        return _margin(self.order, matrix), _margin(self.count, matrix), value


@dataclass(frozen=True)
class Boosted:
    """Members that each held out another fifth of the customers; what they say is averaged."""

    members: tuple[Member, ...]

    def corrections(self, matrix: Floats) -> tuple[Array, Array, Array]:
        """What to add to log odds of an order, log expected orders and log value of an order; (rows,) each."""
        said = np.mean([member.corrections(matrix) for member in self.members], axis=0)
        return said[0], said[1], said[2]

    def order_corrections(self, matrix: Floats) -> Array:
        """What to add to log odds of an order alone; (rows,)."""
        return np.asarray(np.mean([_margin(member.order, matrix) for member in self.members], axis=0))

    def order_parts(self, matrix: Floats) -> Array:
        """What each column adds to the log odds of an order, by Shapley's rule, and what holds for all; (rows, columns + 1)."""
        return np.asarray(np.mean([_parts(member.order, matrix) for member in self.members], axis=0))


def settled(numbers: Array) -> Array:
    """Rounded to about six digits, so that sums added up in another order grow the very same trees."""
    digits, power = np.frexp(numbers)
    # Rounded in binary: cents never lie half-way between two such numbers, as they do between decimal ones.
    return np.asarray(np.ldexp(np.round(np.ldexp(digits, 20)), power - 20), dtype=np.float64)


def fit_boosted(of: Examples, seed: int, device: str = "cpu") -> Boosted:
    """The boosters (Chen and Guestrin 2016), each stopped where its score on the fifth it held out was best.

    The value of an order is learnt from rows with orders, weighted by their number, so that expected orders ×
    value is the expected spend also where value and number go together. Net spend below zero counts as zero
    there; `value_level` takes its share off again.

    Args:
        of: the examples; a booster with fewer than 200 rows to learn from, or to stop by, corrects nothing.
        seed: of row and column samples.
        device: cpu or cuda.
    """
    some = of.orders > 0
    every = np.ones(len(some), dtype=np.bool_)
    paid = np.maximum(of.spend, 0.0)
    each = np.divide(paid, of.orders, where=some, out=np.zeros_like(paid))
    worth = some & np.isfinite(of.first_log_value)
    tasks: tuple[Task, ...] = (
        (every, some.astype(np.float64), of.first_logit, None, ORDER),
        (every, of.orders, of.first_log_orders, None, COUNT),
        (worth, each, of.first_log_value, of.orders, VALUE),
    )
    with ThreadPoolExecutor(cpu_count() or 1) as pool:  # one thread each
        waits = [
            [pool.submit(_fit, of, task, k, {"seed": seed + k, "device": device}) for task in tasks]
            for k in range(MEMBERS)
        ]
        fitted = [[wait.result() for wait in member] for member in waits]
    level, net = paid[worth].sum(), of.spend[worth].sum()
    kept = float(net / level) if level > 0 else 1.0
    return Boosted(
        tuple(Member(order, count, value, kept if value else 1.0) for order, count, value in fitted)
    )


Task = tuple[Mask, Array, Array, Array | None, dict[str, object]]
"""Rows used, label, base margin, weight, parameters."""


def _fit(of: Examples, task: Task, held_out: int, how: dict[str, object]) -> xgboost.Booster | None:
    use, label, margin, weight, what = task
    learn, stop = use & (of.fold != held_out), use & (of.fold == held_out)
    if min(learn.sum(), stop.sum()) < LEAST_ROWS or np.ptp(label[learn]) == 0:
        return None
    parts = [
        xgboost.DMatrix(
            of.matrix[rows],
            label=settled(label[rows]),
            weight=None if weight is None else weight[rows],
            base_margin=margin[rows].round(MARGIN_DIGITS),
            nthread=1,
        )
        for rows in (learn, stop)
    ]
    found = xgboost.train(
        {**TREES, **what, **how},
        parts[0],
        MOST_ROUNDS,
        evals=[(parts[1], "held_out")],
        early_stopping_rounds=PATIENCE,
        verbose_eval=False,
    )
    best: xgboost.Booster = found[: found.best_iteration + 1]
    best.set_param({"nthread": 1})  # a slice forgets it
    return best


def _margin(booster: xgboost.Booster | None, matrix: Floats) -> Array:
    if booster is None or not len(matrix):
        return np.zeros(len(matrix))
    data = xgboost.DMatrix(matrix, base_margin=np.zeros(len(matrix), dtype=np.float32), nthread=1)
    return np.asarray(booster.predict(data, output_margin=True), dtype=np.float64)


def _parts(booster: xgboost.Booster | None, matrix: Floats) -> Array:
    if booster is None or not len(matrix):
        return np.zeros((len(matrix), matrix.shape[1] + 1))
    data = xgboost.DMatrix(matrix, base_margin=np.zeros(len(matrix), dtype=np.float32), nthread=1)
    return np.asarray(booster.predict(data, pred_contribs=True), dtype=np.float64)
