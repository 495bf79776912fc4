"""Effects of the menu's actions as the base's own randomised campaigns measure them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retinue.decisions.experiments.uplift import (
    Exposure,
    Form,
    Qini,
    calibration,
    fit_form,
    fit_uplift,
    imbalance,
    qini,
)
from retinue.decisions.foretold import foretold
from retinue.decisions.offers import drawn
from retinue.evaluation.realised import realised
from retinue.events.store import Store
from retinue.events.timeline import history, is_observed
from retinue.options import ActionOptions, EffectSource, Options
from retinue.schema import (
    CAMPAIGN,
    CUSTOMER_ID,
    EVENT_TIME,
    EVENT_TYPE,
    EXPOSED,
    NOT_EXPOSED,
    REALISED_SPEND,
    InputError,
)

Array = NDArray[np.float64]
COVARIATES = (
    "frequency", "recency_days", "T_days", "days_since_last", "monetary_value", "orders_90d", "net_spend_90d", "net_spend_ever",
    "campaign_exposures_ever",
)  # fmt: skip
NOT_RANDOM = 4.0


@dataclass(frozen=True)
class Measured:
    """What the exposures of one action say.

    Attributes:
        gains: expected_gain, gain_lower and gain_upper by customer_id, at the cutoff.
        mean: effect per customer exposed, with its standard error; account currency.
        treated: customers reached.
        control: customers not reached.
        qini: on customers that the ranking has not seen.
        calibration: predicted against estimated, by tenth.
    """

    gains: pl.DataFrame
    mean: tuple[float, float]
    treated: int
    control: int
    qini: Qini
    calibration: pl.DataFrame


def measured_effects(
    store: Store, cutoff: datetime, menu: Mapping[str, ActionOptions], options: Options
) -> dict[str, Measured]:
    """The effect of each action of the menu that is to be measured; nothing after the cutoff is read.

    Args:
        store: prepared events.
        cutoff: end of history.
        menu: actions by name.
        options: decisions.effect_days, value, seed.

    Raises:
        InputError: a campaign that is not in the events, whose window has not closed, or whose exposure was not random.
    """
    found: dict[str, Measured] = {}
    asked = {name: action for name, action in menu.items() if action.effect is EffectSource.measured}
    if not asked:
        return found
    now, _ = foretold(store, cutoff, options.decisions.effect_days, options)
    for name, action in asked.items():
        exposure, who = _exposure(store, cutoff, name, action, options)
        if (apart := imbalance(exposure, options.seed)) > NOT_RANDOM:
            raise InputError(
                f"actions.menu.{name}: who was reached by '{action.campaign}' hangs on their past ({apart:.0f} standard errors): "
                "it was not drawn at random, and its effect cannot be told from it. Use effect=assumed, or run an experiment."
            )
        learnt = fit_uplift(exposure, options.seed)
        unseen = _cross_fitted(exposure, who, options.seed, learnt.form)
        pseudo = exposure.pseudo
        found[name] = Measured(
            learnt.table(now[CUSTOMER_ID], _drivers(now)),
            (float(pseudo.mean()), _clustered(pseudo, who)),
            int(exposure.treated.sum()),
            int((1 - exposure.treated).sum()),
            qini(exposure, unseen, options.seed),
            calibration(exposure, unseen),
        )
    return found


def _clustered(each: Array, who: pl.Series) -> float:
    """Standard error of the mean of rows of which several are of one customer."""
    apart = pl.DataFrame({"who": who, "apart": each - each.mean()}).group_by("who").agg(pl.col("apart").sum())
    sums = apart["apart"].to_numpy()
    count = len(sums)
    return float(np.sqrt((sums**2).sum() * count / max(count - 1, 1)) / len(each))


def _cross_fitted(exposure: Exposure, who: pl.Series, seed: int, form: Form) -> Array:
    """The effect foretold for each customer by a learner that has not seen them; halves by hash."""
    half = drawn(who, f"retinue uplift {seed}") < 0.5
    said = np.zeros(len(half))
    for mine in (half, ~half):
        said[mine] = fit_form(exposure.rows(~mine), seed, form).effect(exposure.drivers[mine])[0]
    return said


def _drivers(told: pl.DataFrame) -> Array:
    """Foretold margin, and what of it is at stake: margin given an order, times the chance of none."""
    kept = told["foretold_kept"].to_numpy()
    margin = told["foretold_margin"].to_numpy()
    return np.column_stack([margin, margin / np.maximum(kept, 1e-3) * (1 - kept)])


def _exposure(
    store: Store, cutoff: datetime, name: str, action: ActionOptions, options: Options
) -> tuple[Exposure, pl.Series]:
    """All waves of the action's campaigns whose window has closed by the cutoff, one below the other."""
    days = options.decisions.effect_days
    events = _events(store, cutoff, action)
    waves = (
        events.filter(pl.col(EVENT_TYPE) == EXPOSED)
        .group_by(CAMPAIGN)
        .agg(pl.col(EVENT_TIME).min())
        .sort(EVENT_TIME)
    )
    if waves.is_empty():
        raise InputError(
            f"actions.menu.{name}.campaign={action.campaign}: no event of type '{EXPOSED}' has such a campaign by the cutoff."
        )
    parts, who = [], []
    for campaign, starts in waves.iter_rows():
        if is_observed(cutoff, starts, days, store.local_zone):
            part, ids = _wave(store, starts, events.filter(pl.col(CAMPAIGN) == campaign), action, options)
            parts.append(part)
            who.append(ids)
    if not parts:
        raise InputError(
            f"actions.menu.{name}.campaign={action.campaign}: no wave is {days} days old at the cutoff; wait, or lower "
            "decisions.effect_days."
        )
    stacked = [
        np.concatenate([getattr(part, field) for part in parts]) for field in Exposure.__dataclass_fields__
    ]
    return Exposure(*stacked), pl.concat(who)


def _events(store: Store, cutoff: datetime, action: ActionOptions) -> pl.DataFrame:
    """Exposures to the action's campaigns, and who was drawn not to be exposed."""
    scan = history(store.scan(), cutoff)
    columns = [CUSTOMER_ID, EVENT_TYPE, CAMPAIGN, EVENT_TIME]
    if CAMPAIGN not in scan.collect_schema():
        return scan.select(CUSTOMER_ID, EVENT_TYPE, pl.lit("").alias(CAMPAIGN), EVENT_TIME).head(0).collect()
    seen = scan.filter(pl.col(EVENT_TYPE).is_in([EXPOSED, NOT_EXPOSED])).select(columns)
    names = seen.select(pl.col(CAMPAIGN).drop_nulls().unique()).collect().to_series()
    mine = [one for one in names if fnmatchcase(one, action.campaign or "")]
    return seen.filter(pl.col(CAMPAIGN).is_in(mine)).collect()


def _wave(
    store: Store, starts: datetime, events: pl.DataFrame, action: ActionOptions, options: Options
) -> tuple[Exposure, pl.Series]:
    """One wave: who was reached and who was not, what was known of them just before, and what they spent after."""
    days, zone = options.decisions.effect_days, store.local_zone
    before = starts - timedelta(microseconds=1)
    told, features = foretold(store, before, days, options)
    reached = told[CUSTOMER_ID].is_in(events.filter(pl.col(EVENT_TYPE) == EXPOSED)[CUSTOMER_ID].implode())
    kept_out = told[CUSTOMER_ID].is_in(
        events.filter(pl.col(EVENT_TYPE) == NOT_EXPOSED)[CUSTOMER_ID].implode()
    )
    drawn_for = reached | (pl.repeat(True, told.height, eager=True) if action.everyone_drawn else kept_out)
    told, features, reached = told.filter(drawn_for), features.filter(drawn_for), reached.filter(drawn_for)
    came = realised(store.scan(), before, days, zone).collect()
    spend = told.select(CUSTOMER_ID).join(came, on=CUSTOMER_ID, how="left", maintain_order="left")[
        REALISED_SPEND
    ]
    known = [pl.col(name) if name in features.columns else pl.lit(0.0).alias(name) for name in COVARIATES]
    share = float(reached.cast(pl.Float64).mean() or 0.0)  # type: ignore[arg-type]
    exposure = Exposure(
        _drivers(told),
        features.select(one.cast(pl.Float64).fill_null(0.0) for one in known).to_numpy(),
        reached.cast(pl.Int64).to_numpy(),
        np.full(told.height, min(max(share, 1e-6), 1 - 1e-6)),
        spend.fill_null(0.0).to_numpy() * options.value.margin_rate,
    )
    return exposure, told[CUSTOMER_ID]


def told(one: Measured) -> dict[str, Any]:
    """What was measured, but for the customers, as plain data."""
    return {
        "mean": one.mean, "treated": one.treated, "control": one.control, "qini": one.qini.area, "auuc": one.qini.auuc,
        "curve": {name: getattr(one.qini, name).tolist() for name in ("share", "gain", "lower", "upper")},
        "calibration": one.calibration.to_dicts(),
    }  # fmt: skip
