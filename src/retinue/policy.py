"""What the policy of these options would have earned on customers whose earlier, randomised decisions were exported."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from retinue.decisions.decide import NOTHING
from retinue.decisions.exports import logged_in
from retinue.decisions.off_policy import Estimate, Logged, doubly_robust, ips, snips
from retinue.evaluation.realised import realised
from retinue.events.timeline import is_observed
from retinue.options import Options
from retinue.pipeline import advance
from retinue.runs import Progress, Run, Stage, unheard
from retinue.schema import (
    ACTION,
    CLV,
    CUSTOMER_ID,
    EXPECTED_COST,
    PROPENSITY,
    REALISED_SPEND,
    InputError,
)
from retinue.stages import offered


@dataclass(frozen=True)
class Judged:
    """Mean net margin per customer within the horizon, account currency.

    Attributes:
        customers: whose logged decision left a chance for what this policy does.
        without_support: the others: nothing can be said of them.
        logged: of what was done.
        estimates: of this policy, by method.
    """

    customers: int
    without_support: int
    logged: Estimate
    estimates: dict[str, Estimate]


def run_policy(options: Options, progress: Progress = unheard) -> tuple[Run, Judged]:
    """Decides as these options have it, at the cutoff of the log, and holds that against what came of what was done.

    Exploration is left out: what is judged is what the policy would do of its own. Net margin is the realised margin
    less the cost that was expected of the action; a discount that the amounts hold already counts twice, so that
    discounts look rather worse than they are.

    Raises:
        InputError: a mistake in data or options, nothing exported at the cutoff, or a horizon that the data do not cover.
    """
    own = replace(options, decisions=replace(options.decisions, exploration=0.0))
    run = advance(own, Stage.decide, progress)
    cutoff, store = run.cutoffs[-1], run.store
    log = logged_in(run.folder / "exports", cutoff)
    if log.is_empty():
        raise InputError(
            f"policy: no decisions of {cutoff:%Y-%m-%d} are logged in {run.folder / 'exports'}. Run retinue export with "
            "decisions.exploration=0.1, act on it, and judge policies when its horizon has passed."
        )
    if not is_observed(store.observation_end, cutoff, run.horizon_days, store.local_zone):
        raise InputError(
            f"policy: the data end on {store.observation_end:%Y-%m-%d}, before cutoff + {run.horizon_days} days. Wait for "
            "outcomes, or give an earlier cutoff."
        )
    came = realised(store.scan(), cutoff, run.horizon_days, store.local_zone).collect()
    found = offered(run)
    made = found.made
    decided = run.read("decisions").select(CUSTOMER_ID, pl.col(ACTION).alias("now"))
    rows = (
        found.customers.select(CUSTOMER_ID, CLV)
        .with_row_index("row")
        .join(log, on=CUSTOMER_ID)
        .join(decided, on=CUSTOMER_ID)
        .join(came.select(CUSTOMER_ID, REALISED_SPEND), on=CUSTOMER_ID, how="left")
    )
    supported = (pl.col("now") == pl.col(ACTION)) | (pl.col(PROPENSITY) < 1)
    known = rows.filter(supported)
    if known.is_empty():
        raise InputError(
            "policy: the log left no chance for anything that this policy does. Export with decisions.exploration above 0."
        )
    names = [*made.names, *sorted({*known[ACTION]} - {*made.names, NOTHING}), NOTHING]
    done, now = (
        known[column].replace_strict(names, range(len(names)), return_dtype=pl.Int64).to_numpy()
        for column in (ACTION, "now")
    )
    margin = known[REALISED_SPEND].fill_null(0.0).to_numpy() * options.value.margin_rate
    told = Logged(done, known[PROPENSITY].to_numpy(), margin - known[EXPECTED_COST].to_numpy())
    policy = np.eye(len(names))[now]
    net = np.zeros((known.height, len(names)))
    net[:, : len(made.names)] = (made.gain - made.cost)[known["row"].to_numpy()]
    expected = known[CLV].to_numpy()[:, None] + np.nan_to_num(net)
    # what was done has the weight 1 throughout
    alike = Logged(done, np.ones(known.height), told.reward)
    estimates = {
        "inverse propensity (IPS)": ips(told, policy),
        "self-normalised (SNIPS)": snips(told, policy),
        "doubly robust (DR)": doubly_robust(told, policy, expected),
    }
    return run, Judged(
        known.height, rows.height - known.height, ips(alike, np.eye(len(names))[done]), estimates
    )
