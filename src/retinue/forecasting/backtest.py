"""The rolling-origin backtest: every rung forecasts from what was known at past origins and is held to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retinue.accel.engine import EngineChoice, choose_engine, collect
from retinue.evaluation.comparison import ALL_ZERO, Entry, Folds, compare
from retinue.evaluation.folds import PastStore, past_of, scrambled_after
from retinue.evaluation.metrics import churn_auroc
from retinue.evaluation.outcomes import Outcomes, all_zero, joined, outcomes_of
from retinue.evaluation.realised import realised
from retinue.events.store import Store
from retinue.features.query import available_at, features_at
from retinue.forecasting.grid import Grid, grid_at
from retinue.forecasting.ladder import champion
from retinue.forecasting.outlook import Predictor
from retinue.forecasting.rungs import SEQUENCES, Training, fit_rung
from retinue.forecasting.sequence import Histories
from retinue.forecasting.table import buyers_of
from retinue.forecasting.trials import Trial
from retinue.options import Options, Rung, ValueOptions
from retinue.schema import (
    CUSTOMER_ID,
    CUTOFF,
    FORECASTS,
    HORIZON_DAYS,
    SENTINELS,
    T_DAYS,
    InputError,
)

Progress = Callable[[str, float], None]
LABELS_PERMUTED = "labels permuted"
FUTURE_SCRAMBLED = "future scrambled"
RANDOM = frozenset({Rung.xgboost, Rung.blend, *SEQUENCES, Rung.auto})
ORDER = (*(rung for rung in Rung if rung is not Rung.auto), Rung.auto)
ROUNDING = 1e-9  # sums in another order


@dataclass
class Fold:
    """One origin as a rung sees it: the store of that day, the horizon, the options; what rungs share is made once."""

    store: PastStore
    horizon_days: int
    options: Options
    engine: EngineChoice
    trainings: dict[int, Training] = field(default_factory=dict)

    @property
    def cutoff(self) -> datetime:
        """The origin."""
        return self.store.origin

    @cached_property
    def features(self) -> pl.DataFrame:
        """Features of the customers who had ordered, sorted by customer_id."""
        events, zone = self.store.scan(), self.store.local_zone
        kept = available_at(events, self.cutoff, zone)[0]
        asked = features_at(events, self.cutoff, zone, features=kept)
        return buyers_of(collect(asked, self.engine))

    @cached_property
    def grid(self) -> Grid | None:
        """Past cutoffs with their outcomes."""
        return grid_at(self.store, self.cutoff, [self.horizon_days], self.engine)

    @cached_property
    def histories(self) -> Histories:
        """Tokens of all customers."""
        return Histories(self.store, self.cutoff)

    def training(self, seed: int) -> Training:
        """What the rungs learn from; fits without chance, and their trials, are shared by all seeds."""
        if seed not in self.trainings:
            fits: dict[tuple[Rung, int], Predictor] = {}
            tried: dict[tuple[Rung, int], Trial] = {}
            for training in self.trainings.values():
                fits |= {key: fit for key, fit in training.kept.items() if key[0] not in RANDOM}
                tried |= {key: trial for key, trial in training.tried.items() if key[0] not in RANDOM}
            options = replace(self.options, seed=seed)
            self.trainings[seed] = Training(self.features, self.grid, options, fits, tried, self.histories)
        return self.trainings[seed]


class Forecaster(Protocol):
    """A rung's one call signature: fits on the fold's past and returns its `forecasts` table."""

    def __call__(self, fold: Fold, seed: int) -> pl.DataFrame:
        """The `forecasts` table of every customer of `fold.features` at the fold's horizon."""
        ...


@dataclass(frozen=True)
class Contender:
    """A rung by name; one that is random is run with several seeds."""

    name: str
    forecast: Forecaster
    is_random: bool = False


@dataclass(frozen=True)
class Backtest:
    """What a backtest found: the `backtest` table, the sentinels, and the outcomes behind them, simplest rung first.

    `value` is what a campaign is reckoned with.
    """

    scores: pl.DataFrame
    sentinels: pl.DataFrame
    entries: tuple[Entry, ...]
    folds: Folds
    value: ValueOptions


def contender(rung: Rung) -> Contender:
    """A rung of the ladder; auto is whatever the never-worse gate chooses at each origin."""

    def run(fold: Fold, seed: int) -> pl.DataFrame:
        training = fold.training(seed)
        chosen = champion(training)[0] if rung is Rung.auto else rung
        return fit_rung(chosen, training)(fold.features, [fold.horizon_days])

    return Contender(rung.value, run, rung in RANDOM)


def contenders(options: Options) -> list[Contender]:
    """The rungs asked for (all that train in seconds, where none is), simplest first and auto last."""
    asked = options.rungs or [rung for rung in ORDER if rung not in SEQUENCES]
    return [contender(rung) for rung in ORDER if rung in asked]


def backtest(
    store: Store,
    origins: Sequence[datetime],
    horizon_days: int,
    rungs: Sequence[Contender],
    options: Options,
    progress: Progress = lambda text, done: None,
) -> Backtest:
    """Forecasts of every rung at every origin against what came true.

    A rung is handed a store that holds nothing after the origin. The customers are those with an order known at the
    origin, `new` those whose first order lies less than segments.new_days before it. At the first origin
    every rung runs again with a scrambled future in the store: no forecast may change by more than rounding
    (1e-9 of itself). The AUROC of permuted labels must lie within three standard errors of a half.

    Args:
        store: prepared events.
        origins: cutoffs, ascending; the data must reach each one's horizon.
        horizon_days: length of the future.
        rungs: simplest first.
        options: value, segments.new_days, engine, seeds and seed.
        progress: told (text, share done).

    Raises:
        InputError: a rung leaves a customer without a forecast.
    """
    engine, codes = choose_engine(options.engine), dict[str, int]()
    found: dict[str, dict[int, list[Outcomes]]] = {rung.name: {} for rung in rungs}
    is_new: list[NDArray[np.bool_]] = []
    checks: list[tuple[str, str, bool, str]] = []
    for place, origin in enumerate(origins):
        fold = Fold(past_of(store, origin), horizon_days, options, engine)
        truth = _truth(store, fold)
        customer = np.array([codes.setdefault(name, len(codes)) for name in truth[CUSTOMER_ID]], np.int64)
        other = Fold(scrambled_after(fold.store), horizon_days, options, engine)
        is_new.append((truth[T_DAYS] < options.segments.new_days).to_numpy())
        for i, rung in enumerate(rungs):
            progress("backtest", (place + i / len(rungs)) / len(origins))
            for seed in _seeds(rung, options):
                made = rung.forecast(fold, seed)
                found[rung.name].setdefault(seed, []).append(
                    outcomes_of(_scored(rung.name, made, truth), place, customer)
                )
                if place == 0 and seed == options.seed:
                    checks.append(_future_scrambled(rung, other, made, seed))
    progress("backtest", 1.0)
    entries = [
        Entry(rung.name, tuple(joined(parts) for parts in found[rung.name].values())) for rung in rungs
    ]
    checks += [_labels_permuted(entry, options.seed) for entry in entries]
    entries.append(Entry(ALL_ZERO, (all_zero(entries[0].by_seed[0]),)))
    folds = Folds(origins, horizon_days, np.concatenate(is_new))
    sentinels = SENTINELS.check(pl.DataFrame(checks, schema=SENTINELS.schema, orient="row"))
    return Backtest(compare(entries, folds), sentinels, tuple(entries), folds, options.value)


def _seeds(rung: Contender, options: Options) -> Iterator[int]:
    yield from range(options.seed, options.seed + (options.seeds if rung.is_random else 1))


def _truth(store: Store, fold: Fold) -> pl.DataFrame:
    """What came true for the customers known at the origin, with their age, sorted by customer_id."""
    came = realised(store.scan(), fold.cutoff, fold.horizon_days, store.local_zone)
    ages = fold.features.select(CUSTOMER_ID, T_DAYS)
    return came.collect().join(ages, on=CUSTOMER_ID, how="inner", validate="1:1", maintain_order="left")


def _scored(name: str, made: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
    keys = [CUSTOMER_ID, CUTOFF, HORIZON_DAYS]
    both = truth.join(FORECASTS.check(made), on=keys, how="inner", validate="1:1", maintain_order="left")
    if both.height < truth.height:
        raise InputError(
            f"backtest: {name} left {truth.height - both.height:,} customers without a forecast."
        )
    return both


def _future_scrambled(
    rung: Contender, other: Fold, made: pl.DataFrame, seed: int
) -> tuple[str, str, bool, str]:
    """Whether the same forecasts come out when the store holds a future, and one that never happened."""
    change = largest_change(made, rung.forecast(other, seed))
    same = change <= ROUNDING
    said = f"at {other.cutoff:%Y-%m-%d} the largest change in {made.height:,} forecasts is {change:.1e} of itself"
    return FUTURE_SCRAMBLED, rung.name, same, said


def largest_change(one: pl.DataFrame, other: pl.DataFrame) -> float:
    """Largest relative change of any number between two tables; infinite where anything else differs."""
    floats = [name for name, dtype in one.schema.items() if dtype == pl.Float64]
    if one.schema != other.schema or not one.drop(floats).equals(other.drop(floats)):
        return math.inf
    if any(not one[name].is_null().equals(other[name].is_null()) for name in floats):
        return math.inf
    a, b = (table.select(pl.col(floats).fill_null(0.0)).to_numpy() for table in (one, other))
    size = np.maximum(np.maximum(np.abs(a), np.abs(b)), np.finfo(float).tiny)
    return float(np.max(np.abs(a - b) / size, initial=0.0))


def _labels_permuted(entry: Entry, seed: int) -> tuple[str, str, bool, str]:
    """AUROC against labels dealt out anew within each origin, and its distance from a half in standard errors."""
    rows, lot = entry.by_seed[0], np.random.default_rng(seed)
    areas, variances = [], []
    for place in np.unique(rows.origin):
        part = rows.where(rows.origin == place)
        churned = lot.permutation(part.churned)
        area, left = churn_auroc(churned, part.p_churn), churned.sum()
        if area is not None:
            areas.append(area)
            variances.append((len(churned) + 1) / (12 * left * (len(churned) - left)))
    if not areas:
        return LABELS_PERMUTED, entry.model, True, "only one class came true, so there is nothing to rank"
    area, error = float(np.mean(areas)), float(np.sqrt(np.sum(variances)) / len(variances))
    said = f"AUROC {area:.4f} against a half, standard error {error:.4f}"
    return LABELS_PERMUTED, entry.model, abs(area - 0.5) <= 3 * error, said
