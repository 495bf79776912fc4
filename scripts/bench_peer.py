"""One method of bench_peers.py at one cutoff, in a process of its own: METHOD FOLDER/events CUTOFF DAYS; JSON to stdout."""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy.stats import gamma

from retinue.evaluation.metrics import churn_auroc
from retinue.evaluation.realised import evaluate, realised
from retinue.events.store import Store
from retinue.events.timeline import days_before, history, instant
from retinue.features.query import available_at, features_at
from retinue.forecasting.grid import Grid
from retinue.forecasting.ladder import champion
from retinue.forecasting.orders import score_orders
from retinue.forecasting.rungs import fit_rung, training_at
from retinue.forecasting.table import buyers_of, forecasts_table
from retinue.forecasting.trees import best_dispersion, share_of, usable
from retinue.models.btyd import BetaGeometricNBD, Btyd, ParetoNBD
from retinue.models.predictive import orders_log_score
from retinue.models.statistics import Statistics, statistics_of
from retinue.options import Options, Rung
from retinue.schema import (
    CLV,
    CLV_LOWER,
    CLV_UPPER,
    CUSTOMER,
    CUSTOMER_ID,
    CUTOFF,
    EXPECTED_ORDERS,
    EXPECTED_SPEND,
    FREQUENCY,
    HORIZON_DAYS,
    MODEL,
    NET_SPEND_EVER,
    NEXT_ORDER_DAYS,
    ORDERS_SHAPE,
    P_CHURN,
    REALISED_ORDERS,
    REALISED_SPEND,
    RECENCY_DAYS,
    REFUND_VALUE_EVER,
    SPEND_DEVIATION,
    T_DAYS,
    VALUED_TRANSACTIONS,
)

Array = NDArray[np.float64]
WEEK = 7.0  # pymc-marketing's default priors are written for times in weeks
MODULES = {"lifetimes": "lifetimes", "pymc-marketing": "pymc_marketing.clv", "lightgbm": "lightgbm"}
READ = (FREQUENCY, RECENCY_DAYS, T_DAYS, NET_SPEND_EVER, REFUND_VALUE_EVER, VALUED_TRANSACTIONS)
ENDS = {"bg_nbd": ("a", "b"), "pareto_nbd": ("s", "beta")}  # the parameters of dropout
SEED = 0
TREES = {
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "seed": SEED,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
MOST_EXAMPLES = 150_000
HELD_OUT = 0.2  # of the customers
ROUNDS, PATIENCE = 600, 40
ORDER = {"objective": "binary", "metric": "binary_logloss"}
COUNT = {"objective": "poisson", "metric": "poisson"}
SPEND = {"objective": "tweedie", "tweedie_variance_power": 1.5, "metric": "tweedie"}


@dataclass(frozen=True)
class Task:
    """One base at one cutoff."""

    store: Store
    at: datetime
    days: int


@dataclass(frozen=True)
class Said:
    """What a method says of each buyer, (rows,) each; shape is None where it gives no distribution of counts."""

    p_churn: Array
    orders: Array
    spend: Array
    shape: Array | None = None


Forecast = Callable[[], pl.DataFrame]
"""The `forecasts` table of a fitted method."""
Fit = Callable[[], Forecast]


def table_of(buyers: pl.DataFrame, days: int, name: str, said: Said) -> pl.DataFrame:
    """The `forecasts` table of a peer; it has no intervals, so clv stands for its own ends."""
    spend = pl.Series(said.spend)
    shape = pl.lit(None, pl.Float64) if said.shape is None else pl.Series(said.shape)
    rows = buyers.select(CUSTOMER_ID, CUTOFF).with_columns(
        pl.lit(days, pl.Int32).alias(HORIZON_DAYS),
        pl.lit(name).alias(MODEL),
        pl.Series(P_CHURN, said.p_churn),
        pl.Series(EXPECTED_ORDERS, said.orders),
        *(spend.alias(column) for column in (EXPECTED_SPEND, CLV, CLV_LOWER, CLV_UPPER)),
        pl.lit(None, pl.Float64).alias(NEXT_ORDER_DAYS),
        shape.alias(ORDERS_SHAPE),
        pl.lit(None, pl.Float64).alias(SPEND_DEVIATION),
    )
    return forecasts_table([rows])


def summaries(task: Task) -> pl.DataFrame:
    """The few features at the cutoff that the statistical peers read; nothing after it is."""
    known, zone = history(task.store.scan(), task.at), task.store.local_zone
    read = [feature for feature in available_at(known, task.at, zone)[0] if feature.name in READ]
    return buyers_of(features_at(known, task.at, zone, features=read).collect())


def frame_of(base: Statistics, unit_days: float) -> Any:
    """x, t_x, T of each customer, with n valued transactions of mean net value z; n and z are 0 where that is not above 0.

    Peers know no refunds: they are given net values, as forecasts are judged by net spend.
    """
    x, t_x, T = base.distinct.columns[:, base.place].numpy()
    n, net = base.transactions.numpy(), (base.gross - base.refunded).numpy()
    paying = (n > 0) & (net > 0)  # False for NaN
    z = np.divide(net, n, where=paying, out=np.zeros_like(net))
    columns = {"frequency": x.astype(int), "recency": t_x / unit_days, "T": T / unit_days}
    columns |= {"n": np.where(paying, n, 0.0).astype(int), "z": z, "customer_id": np.arange(len(x))}
    return import_module("pandas").DataFrame(columns)


def law(model: str, parameters: dict[str, float], unit_days: float) -> Btyd:
    """A peer's fitted parameters as a model of ours, which has P(no order) and E[N(N - 1)] in closed form.

    P(no order within h) = L(x, t_x, T + h)/L(x, t_x, T), which the peers get wrong or leave out.
    """
    r, alpha = parameters["r"], parameters["alpha"] * unit_days
    if model == "bg_nbd":
        return BetaGeometricNBD(r, alpha, parameters["a"], parameters["b"], dies_at_first=False)
    return ParetoNBD(r, alpha, parameters["s"], parameters["beta"] * unit_days)


def said_by(base: Statistics, fitted: Btyd, orders: Array, value: Array, days: int) -> tuple[Said, int]:
    """The peer's own expected orders and value, with P(no order) and the count's shape under its parameters.

    lifetimes' Pareto/NBD gives NaN for very frequent buyers. Those rows, counted in the second part, hold what its
    parameters mean: a row of 0 would judge the arithmetic, not the model.
    """
    ours = score_orders(fitted, base.histories, [days], 0.0)
    place = base.place.numpy()
    meant, broken = ours.expected_orders[0, place], ~np.isfinite(orders)
    orders = np.where(broken, meant, orders)
    apart = np.abs(orders - meant).max()
    print(f"expected orders differ from ours under its parameters by {apart:.2g} at most", file=sys.stderr)
    return Said(ours.p_churn[0, place], orders, orders * value, ours.shape[0, place]), int(broken.sum())


def named(peer: str, broken: int) -> str:
    """The peer's name, with how many rows it gave no number for."""
    return f"{peer} ({broken} NaN)" if broken else peer


def lifetimes(model: str, task: Task, buyers: pl.DataFrame) -> Forecast:
    """BG/NBD or Pareto/NBD of lifetimes with its Gamma-Gamma, unpenalised, times in days."""
    package = import_module("lifetimes")
    base = statistics_of(buyers)
    frame = frame_of(base, 1.0)
    fitted = package.BetaGeoFitter() if model == "bg_nbd" else package.ParetoNBDFitter()
    fitted.fit(frame["frequency"], frame["recency"], frame["T"])
    paying = frame[frame["n"] > 0]
    value = package.GammaGammaFitter().fit(paying["n"], paying["z"])
    print(dict(fitted.params_), dict(value.params_), file=sys.stderr)

    def forecast() -> pl.DataFrame:
        orders = fitted.conditional_expected_number_of_purchases_up_to_time(
            task.days, frame["frequency"], frame["recency"], frame["T"]
        )
        worth = value.conditional_expected_average_profit(frame["n"], frame["z"])
        same = law(model, dict(fitted.params_), 1.0)
        said, broken = said_by(base, same, np.asarray(orders), np.asarray(worth), task.days)
        return table_of(buyers, task.days, named(f"lifetimes:{model}", broken), said)

    return forecast


def pymc_marketing(model: str, task: Task, buyers: pl.DataFrame) -> Forecast:
    """BG/NBD or Pareto/NBD of pymc-marketing with its Gamma-Gamma, MAP under its default priors, times in weeks."""
    package = import_module("pymc_marketing.clv")
    base = statistics_of(buyers)
    frame = frame_of(base, WEEK)
    fitted = package.BetaGeoModel() if model == "bg_nbd" else package.ParetoNBDModel()
    fitted.fit(data=frame[["customer_id", "frequency", "recency", "T"]], method="map", progressbar=False)
    worth = frame[["customer_id"]].assign(frequency=frame["n"], monetary_value=frame["z"])
    value = package.GammaGammaModel()
    value.fit(data=worth[worth["frequency"] > 0], method="map", progressbar=False)
    found = {name: fitted.fit_result[name].item() for name in ("r", "alpha", *ENDS[model])}
    print(found, {name: value.fit_result[name].item() for name in ("p", "q", "v")}, file=sys.stderr)

    def forecast() -> pl.DataFrame:
        orders = fitted.expected_purchases(data=frame, future_t=task.days / WEEK).values.reshape(-1)
        each = value.expected_customer_spend(data=worth).values.reshape(-1)
        said, broken = said_by(base, law(model, found, WEEK), orders, each, task.days)
        return table_of(buyers, task.days, named(f"pymc-marketing:{model}", broken), said)

    return forecast


@dataclass(frozen=True)
class Examples:
    """Rows of customer × past cutoff × horizon: features, log horizon last; outcomes; rows that only say when to stop."""

    matrix: NDArray[np.float32]
    log_days: Array
    orders: Array
    spend: Array
    held_out: NDArray[np.bool_]


def examples_of(grid: Grid, columns: tuple[str, ...], most: int = MOST_EXAMPLES) -> Examples:
    """Every window of the grid that closed by its cutoff, thinned evenly to about `most` rows."""
    windows = [(at, days) for at in sorted(grid.features) for days in grid.layout.horizons if days <= at]
    share = min(1.0, most / max(sum(grid.features[at].height for at, _ in windows), 1))
    parts = []
    for at, days in windows:
        buyers = grid.features[at]
        kept = share_of(buyers[CUSTOMER], 1 + at * 1_000 + days) < share
        came = grid.outcomes(at, days).select(REALISED_ORDERS, REALISED_SPEND).to_numpy().astype(np.float64)
        held_out = share_of(buyers[CUSTOMER], 0) < HELD_OUT
        seen = matrix(buyers, columns, days)
        parts.append((seen[kept], np.full(int(kept.sum()), np.log(days)), came[kept], held_out[kept]))
    seen, logs, came, held_out = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Examples(seen, logs, came[:, 0], came[:, 1], held_out)


def matrix(buyers: pl.DataFrame, columns: tuple[str, ...], days: int) -> NDArray[np.float32]:
    """(rows, features + 1) as float32, null as NaN, log horizon last."""
    known = buyers.select(pl.col(columns).cast(pl.Float64)).to_numpy()
    return np.column_stack([known, np.full(len(known), np.log(days))]).astype(np.float32)


def boosted(of: Examples, label: Array, rate: float, how: dict[str, Any]) -> tuple[Any, float]:
    """A LightGBM booster on top of log horizon + level, stopped where the held-out customers score best; and that level.

    With log horizon as offset the odds of an order, its count and its spend grow in proportion to the horizon.
    """
    package = import_module("lightgbm")
    level = float(np.log(rate) - of.log_days.mean())
    data = [
        package.Dataset(of.matrix[rows], label[rows], init_score=of.log_days[rows] + level)
        for rows in (~of.held_out, of.held_out)
    ]
    stop = package.early_stopping(PATIENCE, verbose=False)
    return package.train({**TREES, **how}, data[0], ROUNDS, valid_sets=[data[1]], callbacks=[stop]), level


def lightgbm(task: Task, buyers: pl.DataFrame, grid: Grid) -> Forecast:
    """LightGBM on all features: a classifier of an order, Poisson orders and Tweedie spend, horizon as a feature.

    Its counts beyond the first are read as negative binomial, scattering as those of its held-out customers did.
    """
    columns = usable(grid.features[min(grid.features)])
    of = examples_of(grid, columns)
    paid = np.maximum(of.spend, 0.0)  # Tweedie knows no negative spend: its share is taken off again
    some = (of.orders > 0).astype(np.float64)
    fits = [
        boosted(of, some, some.mean() / (1 - some.mean()), ORDER),
        boosted(of, of.orders, of.orders.mean(), COUNT),
        boosted(of, paid, paid.mean(), SPEND),
    ]

    def told(seen: NDArray[np.float32], logs: Array | float) -> tuple[Array, Array, Array]:
        odds, orders, spend = (fit.predict(seen, raw_score=True) + level + logs for fit, level in fits)
        return 1 / (1 + np.exp(odds)), np.exp(orders), np.exp(spend)

    held = of.held_out
    scatter = best_dispersion(of.orders[held], *told(of.matrix[held], of.log_days[held])[:2])

    def forecast() -> pl.DataFrame:
        p_churn, orders, spend = told(matrix(buyers, columns, task.days), float(np.log(task.days)))
        net = spend * of.spend.sum() / paid.sum()
        said = Said(p_churn, orders, net, scatter.shape(p_churn, orders))
        return table_of(buyers, task.days, "lightgbm", said)

    return forecast


def fit_of(maker: str, model: str, task: Task) -> Fit:
    """The inputs of a method, made; what it returns fits the method on them."""
    match maker:
        case "all_zero":
            buyers = summaries(task)
            zero = np.zeros(buyers.height)
            return lambda: lambda: table_of(buyers, task.days, maker, Said(zero + 1, zero, zero))
        case "lifetimes":
            buyers = summaries(task)
            return lambda: lifetimes(model, task, buyers)
        case "pymc-marketing":
            buyers = summaries(task)
            return lambda: pymc_marketing(model, task, buyers)
    model, _, seed = model.partition("#")
    deep = [Rung(model)] if model.startswith("sequence") else []
    if "+" in model:  # a rung that may use networks: blend+sequence_gru
        model, *more = model.split("+")
        deep = [Rung(each) for each in more]
    options = replace(Options(), rungs=deep, seed=int(seed or SEED))
    training = training_at(task.store, task.at, [task.days], options)
    if maker == "lightgbm":
        grid = training.grid
        if grid is None:
            raise SystemExit("the history is too short for past cutoffs")
        return lambda: lightgbm(task, training.buyers, grid)

    def fit() -> Forecast:
        scorer = fit_rung(champion(training)[0] if model == "auto" else Rung(model), training)
        return lambda: scorer(training.buyers, [task.days])

    return fit


def measured(method: str, task: Task) -> dict[str, Any]:
    """Figures of one method: what `evaluate` says, seconds of each step, and the peak memory of this process."""
    maker, _, model = method.partition(":")
    needed = MODULES.get(maker)
    if needed and find_spec(needed.partition(".")[0]) is None:
        return {"skipped": f"{maker} is not installed; pip install 'retinue[bench]' brings it"}
    if needed:
        import_module(needed)  # its import is no part of its fit
    clocks = [time.perf_counter()]
    fit = fit_of(maker, model, task)
    clocks.append(time.perf_counter())
    forecast = fit()
    clocks.append(time.perf_counter())
    forecasts = forecast()
    clocks.append(time.perf_counter())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    truth = realised(task.store.scan(), task.at, task.days, task.store.local_zone).collect()
    scores = evaluate(forecasts, truth)
    by_customer = log_scores(forecasts, truth)
    return {
        "halved": halved_auroc(task, forecasts, truth),
        "log_scores": None if by_customer is None else by_customer.round(6).tolist(),
        "model": forecasts[MODEL][0],
        "customers": scores["customers"],
        "churn": {name: scores["churn"][name] for name in ("auroc", "brier")},
        "orders": {name: scores["orders"][name] for name in ("log_score", "rmse", "bias_percent")},
        "value": {name: scores["value"][name] for name in ("gini", "mae_of_mean", "bias_percent")},
        "seconds": dict(zip(("inputs", "fit", "forecast"), np.diff(clocks).tolist(), strict=True)),
        "peak_mib": peak,
    }


def log_scores(forecasts: pl.DataFrame, truth: pl.DataFrame) -> Array | None:
    """Log probability of each customer's number of orders, by customer_id; None without a distribution."""
    rows = truth.join(forecasts, on=[CUSTOMER_ID, CUTOFF, HORIZON_DAYS], how="inner").sort(CUSTOMER_ID)
    if rows[ORDERS_SHAPE].null_count():
        return None
    columns = (rows[name].to_numpy() for name in (REALISED_ORDERS, P_CHURN, EXPECTED_ORDERS, ORDERS_SHAPE))
    return orders_log_score(*columns)


def halved_auroc(task: Task, forecasts: pl.DataFrame, truth: pl.DataFrame) -> float | None:
    """AUROC for whose spend fell below half of what it was in as many days before.

    Customers are ranked by the probability of that under a gamma distribution of spend given an order; by expected
    over past spend where a method gives no distribution.
    """
    before = days_before(task.at, task.days, task.store.local_zone)
    past = realised(history(task.store.scan(), task.at), before, task.days, task.store.local_zone)
    spent = past.select(CUSTOMER_ID, pl.col(REALISED_SPEND).alias("past")).filter(pl.col("past") > 0)
    rows = truth.join(forecasts, on=[CUSTOMER_ID, CUTOFF, HORIZON_DAYS], how="inner")
    rows = rows.join(spent.collect(), on=CUSTOMER_ID, how="inner")
    halved = (rows[REALISED_SPEND] < 0.5 * rows["past"]).to_numpy().astype(np.float64)
    past_spend, expected, p_churn = (rows[name].to_numpy() for name in ("past", EXPECTED_SPEND, P_CHURN))
    if rows[SPEND_DEVIATION].null_count():
        return churn_auroc(halved, -expected / past_spend)
    mean = np.maximum(expected / np.maximum(1 - p_churn, 1e-12), 1e-9)
    shape = (mean / np.maximum(rows[SPEND_DEVIATION].to_numpy(), 1e-9)) ** 2
    below = gamma.cdf(past_spend / 2, shape, scale=mean / shape)
    return churn_auroc(halved, p_churn + (1 - p_churn) * below)


def main(method: str, folder: str, cutoff: str, days: str) -> None:
    """One JSON object on stdout; what the packages print goes to stderr."""
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    torch.manual_seed(SEED)
    np.random.seed(SEED)  # lifetimes starts its Pareto/NBD search at random numbers
    store = Store.open(Path(folder))
    task = Task(store, instant(cutoff, store.local_zone), int(days))
    print(json.dumps(measured(method, task)))


if __name__ == "__main__":
    main(*sys.argv[1:])
