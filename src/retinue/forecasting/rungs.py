"""Every rung with one signature: `fit_rung(rung, training)` gives a scorer, the scorer gives the `forecasts` table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import assert_never

import numpy as np
import polars as pl

from retinue.accel.devices import xgboost_device
from retinue.accel.engine import choose_engine, collect
from retinue.events.store import Store
from retinue.events.timeline import history
from retinue.features.query import available_at, features_at
from retinue.forecasting.blend import EQUAL, Blend, best_weight, mixed_trials
from retinue.forecasting.calibration import Recalibrated, correction_of, moved, total_factor
from retinue.forecasting.grid import Grid, grid_at
from retinue.forecasting.intervals import Levels, fit_levels
from retinue.forecasting.outlook import Law, Outlook, Predictor, fit_law
from retinue.forecasting.sequence import Histories, fit_sequence, with_encoder
from retinue.forecasting.table import buyers_of, forecasts_table, rows_of
from retinue.forecasting.trees import fit_trees
from retinue.forecasting.trials import Trial, lead
from retinue.forecasting.tuned import fit_tuned
from retinue.forecasting.zero_shot import ZeroShot, base_model, zero_shot_at
from retinue.models.own_rate import OwnRate
from retinue.options import Encoder, Options, Rung
from retinue.schema import (
    CUSTOMER,
    CUTOFF,
    EXPECTED_ORDERS,
    EXPECTED_SPEND,
    REALISED_ORDERS,
    REALISED_SPEND,
    InputError,
)
from retinue.training.watch import Heard

DEFAULT = Rung.pareto_nbd
LAWS = (Rung.pareto_nbd, Rung.bg_nbd, Rung.mbg_nbd)  # the first stands where none is clearly better
NOW = 0
SEQUENCES = {Rung.sequence_gru: Encoder.gru, Rung.sequence_transformer: Encoder.transformer}
NOBODY = Law(
    OwnRate(1.0, 1.0), None
)  # of a base where nobody has ordered, so that it says nothing of anybody


@dataclass(frozen=True)
class Training:
    """All that a rung may learn from at one cutoff; fits are kept, so that rungs share them.

    Attributes:
        buyers: Features at the cutoff of customers who have ordered, sorted by customer_id.
        grid: Past cutoffs with their outcomes; None where the history is too short or the base too small.
        options: value, segments.new_days, engine and seed.
        kept: Fits so far, by rung and days before the cutoff.
        tried: Trials so far, likewise.
        histories: Tokens of all customers, for the sequence rungs; there wherever there is a grid.
        checkpoints: Folder for the network at the cutoff, and below it for those at past origins; None keeps none, and
            trains in this one process.
        heard: Told the curve of losses of the network at the cutoff, now and then.
    """

    buyers: pl.DataFrame
    grid: Grid | None
    options: Options
    kept: dict[tuple[Rung, int], Predictor] = field(default_factory=dict, compare=False)
    tried: dict[tuple[Rung, int], Trial] = field(default_factory=dict, compare=False)
    histories: Histories | None = field(default=None, compare=False)
    checkpoints: Path | None = None
    heard: Heard | None = field(default=None, compare=False)

    @property
    def deep(self) -> tuple[Rung, ...]:
        """The sequence rungs that auto may choose and the blend takes in: those in options.rungs, as they take minutes."""
        return tuple(rung for rung in SEQUENCES if rung in self.options.rungs)

    @cached_property
    def unlikeness(self) -> float | None:
        """How unlike the bases that the base model has seen this one is, see `Prior`; None where it cannot be read."""
        read = None if self.buyers.is_empty() else self.predictor(Rung.zero_shot)
        return read.base.unlikeness if isinstance(read, ZeroShot) else None

    @property
    def is_familiar(self) -> bool:
        """Whether the base model has seen bases like this one."""
        return self.unlikeness is not None and self.unlikeness <= 1

    @property
    def origins(self) -> tuple[int, ...]:
        """Past origins at which rungs can be tried, in days before the cutoff, latest first."""
        if self.grid is None:
            return ()
        return tuple(o for o in self.grid.layout.origins if o in self.grid.features)

    def predictor(self, rung: Rung, offset: int = NOW) -> Predictor:
        """The rung fitted on what was known so many days before the cutoff."""
        if (rung, offset) not in self.kept:
            self.kept[rung, offset] = self._fit(rung, offset)
        return self.kept[rung, offset]

    def _fit(self, rung: Rung, offset: int) -> Predictor:  # noqa: PLR0911
        match rung:
            case _ if self.buyers.is_empty():
                return NOBODY
            case Rung.own_rate | Rung.bg_nbd | Rung.mbg_nbd | Rung.pareto_nbd:
                same = (fit for (_, at), fit in self.kept.items() if at == offset and isinstance(fit, Law))
                return fit_law(rung, self._buyers(offset), next(same, None))
            case Rung.xgboost | Rung.sequence_gru | Rung.sequence_transformer if self.grid is None:
                return self.predictor(self.best_law, offset)
            case Rung.zero_shot:
                return self._zero_shot(offset)
            case Rung.xgboost:
                assert self.grid is not None
                device = xgboost_device(choose_engine(self.options.engine))
                return fit_trees(self.first(offset), self.grid, offset, self.options.seed, device)
            case Rung.sequence_gru | Rung.sequence_transformer:
                return self._network(rung, offset)
            case Rung.blend:
                return self._blend(offset)
            case Rung.auto:
                raise ValueError("rung auto names no model: choose one first.")
        assert_never(rung)

    def _network(self, rung: Rung, offset: int) -> Predictor:
        assert self.grid is not None
        assert self.histories is not None
        options, out, tokens = (
            with_encoder(self.options, SEQUENCES[rung]),
            self.checkpoints,
            self.histories.tokens,
        )
        if out is None:
            options = replace(options, trainer=replace(options.trainer, devices=1, nodes=1))
        elif offset != NOW:
            out = out / f"origin-{offset}"
        heard = self.heard if offset == NOW else None
        if options.init is not None and rung is Rung.sequence_gru:
            return fit_tuned(base_model(options.init), self.grid, tokens, offset, options, out, heard)
        return fit_sequence(self.first(offset), self.grid, tokens, offset, options, out, heard)

    def _zero_shot(self, offset: int) -> Predictor:
        """The base model; the best law where there are features alone, and no events to read."""
        if self.histories is None:
            return self.predictor(self.best_law, offset)
        model = base_model(self.options.base_model)
        return zero_shot_at(model, self.histories.tokens, self._buyers(offset)[CUTOFF][0])

    def _blend(self, offset: int) -> Predictor:
        """The best law, the base model, the trees and the networks asked for, each weighed against those before it."""
        closed = self._closed_by(offset)
        blend: Predictor = self.predictor(self.best_law, offset)
        tried = [self.trial(self.best_law, origin) for origin in closed]
        familiar = (Rung.zero_shot,) if self.is_familiar else ()
        for before, rung in enumerate((*familiar, Rung.xgboost, *self.deep), 1):
            more = [self.trial(rung, origin) for origin in closed]
            weight = best_weight(tried, more, 1 / (before + 1))
            tried = mixed_trials(tried, more, weight)
            blend = Blend(blend, self.predictor(rung, offset), weight)
        return blend

    def _closed_by(self, offset: int) -> list[int]:
        """Origins whose window had closed so many days before the cutoff: what was known of their outcomes then."""
        assert self.grid is not None or not self.origins
        inner = self.grid.layout.inner_days if self.grid else 0
        return [origin for origin in self.origins if origin - inner >= offset]

    def first(self, offset: int = NOW) -> Predictor:
        """What trees and networks start from: half own rate, half the best law."""
        own, law = (self.predictor(rung, offset) for rung in (Rung.own_rate, self.best_law))
        return Blend(own, law, EQUAL)

    def _buyers(self, offset: int) -> pl.DataFrame:
        if offset == NOW:
            return self.buyers
        assert self.grid is not None
        return self.grid.features[offset]

    def trial(self, rung: Rung, origin: int) -> Trial:
        """The rung's forecast at one of `origins`, beside what came."""
        if (rung, origin) not in self.tried:
            self.tried[rung, origin] = self._try(rung, origin)
        return self.tried[rung, origin]

    def _try(self, rung: Rung, origin: int) -> Trial:
        assert self.grid is not None
        buyers, days = self.grid.features[origin], self.grid.layout.inner_days
        said = self.predictor(rung, origin).outlook(buyers, [days], 0.0)
        came = self.grid.outcomes(origin, days)
        orders, spend = (
            came[name].to_numpy().astype(np.float64) for name in (REALISED_ORDERS, REALISED_SPEND)
        )
        return Trial(origin, buyers, buyers[CUSTOMER].to_numpy(), orders, spend, said)

    def trials(self, rung: Rung) -> list[Trial]:
        """At every origin."""
        return [self.trial(rung, origin) for origin in self.origins]

    @cached_property
    def best_law(self) -> Rung:
        """The statistical rung to start from: Pareto/NBD, or one that beats it clearly on past origins."""
        best = DEFAULT
        for rung in LAWS[1:] if self.origins else ():
            if lead(self.trials(rung), self.trials(best)).wins:
                best = rung
        return best


@dataclass(frozen=True)
class Scorer:
    """A fitted rung: features in, `forecasts` out.

    Attributes:
        rung: Named in every row.
        predictor: The fit, its level corrected where past origins agree on it.
        levels: Of the intervals, as past origins set them.
        options: value.
        tried: Its forecasts at past origins, corrected likewise, latest first.
    """

    rung: Rung
    predictor: Predictor
    levels: Levels
    options: Options
    tried: tuple[Trial, ...]

    def __call__(self, features: pl.DataFrame, horizons: Sequence[int]) -> pl.DataFrame:
        """The `forecasts` table, sorted by customer_id, cutoff, horizon_days; no row for who has never ordered.

        Raises:
            InputError: a column is missing, a history cannot be, or the features hold several cutoffs.
        """
        buyers, asked = buyers_of(features), sorted(set(horizons))
        if buyers.is_empty():
            return forecasts_table([])
        if buyers[CUTOFF].n_unique() > 1:
            raise InputError(
                "features: hold several cutoffs, and a rung is fitted at one. Score them one at a time."
            )
        value = self.options.value
        said = self.predictor.outlook(buyers, asked, value.discount_rate_yearly)
        wait = self.predictor.next_order_days(buyers)
        return forecasts_table([rows_of(buyers, said, wait, asked, self.rung.value, self.levels, value)])

    def totals(self, forecasts: pl.DataFrame) -> dict[str, dict[str, float | None]]:
        """Total orders and spend of its forecasts at one horizon, with 90 % intervals from past misses."""
        found: dict[str, dict[str, float | None]] = {}
        for what, column in (("orders", EXPECTED_ORDERS), ("spend", EXPECTED_SPEND)):
            total, factor = float(forecasts[column].sum()), total_factor(self.tried, what)
            span = (None, None) if factor is None else (total / factor, total * factor)
            found[what] = {"expected": total, "lower": span[0], "upper": span[1]}
        return found


def training_at(
    store: Store,
    cutoff: datetime,
    horizons: Sequence[int],
    options: Options,
    features: pl.DataFrame | None = None,
    with_past: bool = True,
) -> Training:
    """What every rung may learn from at a cutoff; nothing after it is read.

    Args:
        store: prepared events of one base.
        cutoff: end of history.
        horizons: asked for, whole days.
        options: engine, seed, value and segments.new_days.
        features: the features at the cutoff, where they are made already.
        with_past: whether to look at past cutoffs; without them laws are fitted and nothing is tried.
    """
    engine = choose_engine(options.engine)
    if features is None:
        known, zone = history(store.scan(), cutoff), store.local_zone
        asked = features_at(known, cutoff, zone, features=available_at(known, cutoff, zone)[0])
        features = collect(asked, engine)
    grid = grid_at(store, cutoff, horizons, engine) if with_past else None
    return Training(buyers_of(features), grid, options, histories=Histories(store, cutoff))


def fit_rung(rung: Rung, training: Training) -> Scorer:
    """The rung at the training's cutoff, with its level and intervals set by its own forecasts at past origins.

    Nothing of the base model is fitted; where there is a past, its intervals too are set by it.

    Args:
        rung: any but auto. xgboost corrects the best law; without enough past it is that law.
        training: from `training_at`.
    """
    predictor, trials, correction = training.predictor(rung), training.trials(rung), None
    if training.grid is not None and rung is not Rung.zero_shot:  # whose level stands as it was read
        correction = correction_of(trials, training.grid.layout.disjoint_windows)
    if correction is not None:
        predictor = Recalibrated(predictor, correction)
        trials = [_moved(trial, moved(trial.outlook, correction)) for trial in trials]
    levels = fit_levels(trials, training.options.segments.new_days)
    return Scorer(rung, predictor, levels, training.options, tuple(trials))


def _moved(trial: Trial, outlook: Outlook) -> Trial:
    return Trial(trial.offset, trial.buyers, trial.codes, trial.orders, trial.spend, outlook)
