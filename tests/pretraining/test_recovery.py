"""What the shipped base model recovers of worlds whose truth is known; `scripts/bench_recovery.py` prints more of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from retinue.config import resolve
from retinue.evaluation.realised import realised
from retinue.forecasting.outlook import Law, Predictor
from retinue.forecasting.rungs import training_at
from retinue.models.btyd import ParetoNBD
from retinue.models.predictive import orders_log_score
from retinue.options import Options, Rung
from retinue.pipeline import Stage, advance
from retinue.schema import CUSTOMER_ID, REALISED_ORDERS
from retinue.worlds import simulate
from retinue.worlds.spec import Customers, Process, Spec, Spread

DAYS, FUTURE = 730, 180


def scores(
    spec: Spec, rungs: tuple[Rung, ...], folder: Path, law: ParetoNBD | None = None, customers: int = 2_000
) -> list[np.ndarray]:
    """Log score of the counts of each rung, and last of the true law where there is one, per customer."""
    spec.cutoffs = ()
    path = folder / "events.parquet"
    simulate(spec, customers, 5).events.write_parquet(path)
    words = [
        "data=files",
        f"data.path={path}",
        f"data.observation_end={spec.last_day}",
        f"output={folder}/run",
    ]
    store = advance(resolve(words), Stage.prepare).store
    cutoff = spec.start + timedelta(days=DAYS, microseconds=-1)
    training = training_at(store, cutoff, [FUTURE], Options(), with_past=False)
    came = realised(store.scan(), cutoff, FUTURE, store.local_zone).collect()
    orders = training.buyers.select(CUSTOMER_ID).join(came, on=CUSTOMER_ID, how="left", maintain_order="left")
    count = orders[REALISED_ORDERS].to_numpy().astype(np.float64)

    def score(predictor: Predictor) -> np.ndarray:
        said = predictor.outlook(training.buyers, [FUTURE], 0.0)
        return orders_log_score(count, said.p_churn[0], said.orders[0], said.shape[0])

    found = [score(training.predictor(rung)) for rung in rungs]
    return found if law is None else [*found, score(Law(law, None))]


@pytest.mark.parametrize("truth", [(0.6, 60.0, 0.6, 90.0), (1.5, 30.0, 0.4, 500.0)])
def test_on_pareto_nbd_it_gains_nearly_what_the_truth_gains_over_own_rate(
    truth: tuple[float, float, float, float], tmp_path: Path
) -> None:
    r, alpha, s, beta = truth
    who = Customers(rate=Spread.gamma(r, alpha), dropout=Spread.gamma(s, beta))
    spec = Spec(days=DAYS + FUTURE, customers=who)
    own, zero, true = scores(spec, (Rung.own_rate, Rung.zero_shot), tmp_path, ParetoNBD(*truth))
    gain = (zero.mean() - own.mean()) / (true.mean() - own.mean())
    assert true.mean() > own.mean() + 0.05
    assert gain > 0.97


def test_clumpy_buyers_are_read_better_than_by_fitted_laws(tmp_path: Path) -> None:
    """A family that the base model was never shown."""
    spec = Spec(Process.pareto_ggg, DAYS + FUTURE, customers=Customers(regularity=Spread(0.4)))
    bg, pareto, zero = scores(spec, (Rung.bg_nbd, Rung.pareto_nbd, Rung.zero_shot), tmp_path)
    for law in (bg, pareto):
        lead = zero - law
        assert lead.mean() > 2 * lead.std() / len(lead) ** 0.5
