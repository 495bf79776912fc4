"""What an action does to whom, learnt from a randomised exposure: doubly robust, cross-fitted, with intervals.

The learner is econml's LinearDRLearner (Kennedy 2023): outcomes are first explained by boosted trees that never saw the
customer, then the remaining effect is a linear function of a few numbers that say what there is to gain, with
heteroscedasticity-robust intervals. Because the propensity is known, errors of the trees cannot bias the mean effect.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from xgboost import XGBRegressor

from retinue.schema import CUSTOMER_ID, EXPECTED_GAIN, GAIN_LOWER, GAIN_UPPER, InputError

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

LEVEL = 0.10  # of the intervals: 90 %
LEAST_PER_ARM = 200
FOLDS = 3
TREES = {
    "n_estimators": 120, "max_depth": 3, "learning_rate": 0.06, "subsample": 0.7, "colsample_bytree": 0.7,
    "min_child_weight": 20, "n_jobs": 1, "tree_method": "hist",
}  # fmt: skip


@dataclass(frozen=True)
class Exposure:
    """A randomised exposure and what came of it; one row per customer.

    Attributes:
        drivers: (rows, k) numbers that the effect may follow: such as clv, value at stake and 1 - p_churn before it.
        covariates: (rows, m) other features before it, which explain the outcome.
        treated: (rows,) 1 for the treated, 0 for the control.
        propensity: (rows,) chance of treatment.
        outcome: (rows,) margin within the window.
    """

    drivers: Array
    covariates: Array
    treated: Labels
    propensity: Array
    outcome: Array

    def rows(self, chosen: NDArray[Any]) -> Exposure:
        """Some of the customers."""
        return Exposure(
            self.drivers[chosen],
            self.covariates[chosen],
            self.treated[chosen],
            self.propensity[chosen],
            self.outcome[chosen],
        )

    @property
    def pseudo(self) -> Array:
        """Horvitz–Thompson outcome, whose mean over any group is the group's effect; (rows,)."""
        weight = self.treated / self.propensity - (1 - self.treated) / (1 - self.propensity)
        return np.asarray(weight * self.outcome)


@dataclass(frozen=True)
class Form:
    """What the effect may be: linear in the first so many drivers, through zero or not."""

    drivers: int
    intercept: bool


FORMS = (Form(1, False), Form(1, True), Form(2, True))  # simpler first


@dataclass(frozen=True)
class Uplift:
    """A learnt effect; `scale` brings drivers near 1."""

    learner: Any
    scale: Array
    form: Form = FORMS[-1]

    def effect(self, drivers: Array) -> tuple[Array, Array, Array]:
        """Expected gain per customer with the ends of its 90 % interval; (rows,) each."""
        x = self.inputs(drivers)
        mean = np.asarray(self.learner.effect(x)).ravel()
        low, high = (np.asarray(end).ravel() for end in self.learner.effect_interval(x, alpha=LEVEL))
        return mean, low, high

    def inputs(self, drivers: Array) -> Array:
        """The drivers as the learner takes them."""
        return np.asarray((drivers / self.scale)[:, : self.form.drivers])

    def loss(self, exposure: Exposure) -> float:
        """Doubly robust loss on customers that it has not seen (Foster and Syrgkanis 2023); lower is better."""
        return float(
            self.learner.score(
                exposure.outcome, exposure.treated, X=self.inputs(exposure.drivers), W=_nuisances(exposure)
            )
        )

    def table(self, customer_ids: pl.Series, drivers: Array) -> pl.DataFrame:
        """The effect by customer_id, as `offers` takes it."""
        mean, low, high = self.effect(drivers)
        return pl.DataFrame(
            {CUSTOMER_ID: customer_ids, EXPECTED_GAIN: mean, GAIN_LOWER: low, GAIN_UPPER: high}
        )


class _Known:
    """The known propensity in the form that econml asks of a fitted model: the last covariate holds it."""

    def fit(self, x: Array, y: Array, **_: Any) -> _Known:
        return self

    def predict_proba(self, x: Array) -> Array:
        return np.column_stack([1 - x[:, -1], x[:, -1]])

    def score(self, x: Array, y: Array, **_: Any) -> float:
        return 0.0

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {}

    def set_params(self, **_: Any) -> _Known:
        return self


def _nuisances(exposure: Exposure) -> Array:
    """What explains the outcome: covariates, all drivers, and last the propensity."""
    return np.column_stack([exposure.covariates, exposure.drivers, exposure.propensity])


def fit_uplift(exposure: Exposure, seed: int = 0, form: Form | None = None) -> Uplift:
    """Learns the effect.

    The simplest form stands until a richer one has the smaller loss on both halves of the customers, each learnt on the
    other half.

    Args:
        exposure: randomised; its first driver is what there is to gain at most, such as the margin foretold.
        seed: of folds and trees.
        form: that the effect has; None finds it.

    Raises:
        InputError: fewer than 200 customers in an arm, or econml is not installed.
    """
    sizes = np.bincount(exposure.treated, minlength=2)
    if sizes.min() < LEAST_PER_ARM:
        raise InputError(
            f"effect=measured: the exposure has {sizes[1]:,} treated and {sizes[0]:,} control customers; "
            f"at least {LEAST_PER_ARM} of each are needed."
        )
    return fit_form(exposure, seed, form or _found_form(exposure, seed))


def _found_form(exposure: Exposure, seed: int) -> Form:
    half = np.random.default_rng(seed).random(len(exposure.outcome)) < 0.5
    sides = [(exposure.rows(half), exposure.rows(~half)), (exposure.rows(~half), exposure.rows(half))]
    losses = {form: [fit_form(learn, seed, form).loss(judge) for learn, judge in sides] for form in FORMS}
    best = FORMS[0]
    for form in FORMS[1:]:
        if all(new < old for new, old in zip(losses[form], losses[best], strict=True)):
            best = form
    return best


def fit_form(exposure: Exposure, seed: int, form: Form) -> Uplift:
    """Learns an effect of a given form, however few customers there are."""
    try:
        from econml.dr import LinearDRLearner  # noqa: PLC0415 (seconds to import, and optional)
    except ImportError as error:
        raise InputError("effect=measured: needs econml. Run: pip install 'retinue[experiments]'") from error
    learner = LinearDRLearner(
        model_propensity=_Known(),
        model_regression=XGBRegressor(random_state=seed, **TREES),
        fit_cate_intercept=form.intercept,
        cv=FOLDS,
        random_state=seed,
        min_propensity=1e-3,
    )
    made = Uplift(learner, np.maximum(np.abs(exposure.drivers).mean(axis=0), 1e-9), form)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of versions to come, in libraries that econml stands on
        learner.fit(
            exposure.outcome,
            exposure.treated,
            X=made.inputs(exposure.drivers),
            W=_nuisances(exposure),
            inference="auto",
        )
    return made


def imbalance(exposure: Exposure, seed: int = 0) -> float:
    """How many standard errors from a half the AUROC lies with which covariates foretell treatment, cross-fitted.

    Beyond about 4 the exposure was not random, whatever was said of it.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415
    from sklearn.model_selection import cross_val_predict  # noqa: PLC0415

    x = np.column_stack([exposure.drivers, exposure.covariates])
    model = HistGradientBoostingClassifier(max_depth=3, max_iter=60, random_state=seed)
    said = cross_val_predict(model, x, exposure.treated, cv=5, method="predict_proba")[:, 1]
    ones, zeros = float(exposure.treated.sum()), float((1 - exposure.treated).sum())
    error = np.sqrt((ones + zeros + 1) / (12 * ones * zeros))
    return float((roc_auc_score(exposure.treated, said) - 0.5) / error)


@dataclass(frozen=True)
class Qini:
    """What is gained by treating the best share first.

    Attributes:
        share: (points,) of customers treated, by predicted effect.
        gain: (points,) per customer of the base, estimated from the exposure.
        lower: 5 % quantile of the bootstrap.
        upper: 95 % quantile.
        area: between the curve and treating at random (Qini coefficient), with its 90 % band.
        auuc: area under the curve, with its 90 % band.
    """

    share: Array
    gain: Array
    lower: Array
    upper: Array
    area: tuple[float, float, float]
    auuc: tuple[float, float, float]


def qini(exposure: Exposure, predicted: Array, seed: int = 0, resamples: int = 200, points: int = 51) -> Qini:
    """The Qini curve of a ranking (Radcliffe 2007) on customers that it has not seen, with bootstrap bands."""
    share = np.linspace(0, 1, points)
    ranked = exposure.pseudo[np.argsort(-predicted, kind="stable")]
    count = len(ranked)

    def curve(weights: Array) -> Array:
        total = np.cumsum(weights)
        gain = np.concatenate([[0.0], np.cumsum(ranked * weights)]) / total[-1]
        return np.asarray(np.interp(share, np.concatenate([[0.0], total / total[-1]]), gain))

    rng = np.random.default_rng(seed)
    draws = (rng.integers(0, count, count) for _ in range(resamples))
    drawn = np.stack([curve(np.bincount(draw, minlength=count).astype(np.float64)) for draw in draws])
    made = curve(np.ones(count))
    areas = np.trapezoid(drawn, share, axis=1)
    whole = float(np.trapezoid(made, share))
    lower, upper = np.quantile(drawn, [0.05, 0.95], axis=0)
    beyond = [float(end) for end in np.quantile(areas - drawn[:, -1] / 2, [0.05, 0.95])]
    under = [float(end) for end in np.quantile(areas, [0.05, 0.95])]
    area = (whole - float(made[-1]) / 2, beyond[0], beyond[1])
    return Qini(share, made, lower, upper, area, (whole, under[0], under[1]))


def calibration(exposure: Exposure, predicted: Array, groups: int = 10) -> pl.DataFrame:
    """Predicted against estimated effect by tenth of the prediction, each with its standard error."""
    place = np.argsort(np.argsort(predicted, kind="stable")) * groups // max(len(predicted), 1)
    rows = []
    for group in range(groups):
        mine = place == group
        pseudo = exposure.pseudo[mine]
        if len(pseudo) > 1:
            error = float(pseudo.std(ddof=1) / np.sqrt(len(pseudo)))
            rows.append(
                (group + 1, int(mine.sum()), float(predicted[mine].mean()), float(pseudo.mean()), error)
            )
    columns = {
        "tenth": pl.Int64(), "customers": pl.Int64(), "predicted": pl.Float64(), "estimated": pl.Float64(),
        "error": pl.Float64(),
    }  # fmt: skip
    return pl.DataFrame(rows, schema=pl.Schema(columns), orient="row")
