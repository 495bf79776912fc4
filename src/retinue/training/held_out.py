"""What a trained network says of the customers held out from it, beside what came: one row per readout and horizon."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import torch
from torch import Tensor

from retinue.models import clocks as law
from retinue.models.clocks import Clocks, clocks_from
from retinue.models.network import Network
from retinue.schema import EXPECTED_ORDERS, EXPECTED_SPEND, HORIZON_DAYS, MODEL, P_CHURN
from retinue.sequences.batches import Targets
from retinue.sequences.resident import Resident, Sampler
from retinue.training.data import INNER_READOUTS, TOKENS_PER_BUCKET, Ints
from retinue.training.module import Part
from retinue.training.objective import count_scores

HORIZONS = (7, 30, 90, 180, 365)
NETWORK, ALIKE = "network", "all_alike"
HELD_OUT_FILE = "held_out.parquet"
SAID = (str(P_CHURN), str(EXPECTED_ORDERS), str(EXPECTED_SPEND), "log_score", "orders", "spend")
SCHEMA = pl.Schema(
    {str(MODEL): pl.String(), str(HORIZON_DAYS): pl.Int64(), **dict.fromkeys(SAID, pl.Float32())}
)


@torch.no_grad()
def held_out(network: Network, data: Resident, neutral: Tensor, order_value: float) -> pl.DataFrame:
    """Forecasts of held-out readouts at each of `HORIZONS` that was observed whole, before any recalibration.

    Args:
        network: trained; left in eval mode.
        data: the held-out readouts, with targets.
        neutral: (WIDTH,) raw forecast for everybody before training, which stands beside the network's.
        order_value: account currency of one unit of money.

    Returns:
        model (`network` or `all_alike`), horizon_days, and `SAID`: spend in account currency, log_score the log
        probability of the number of orders.
    """
    network.eval()
    found = [SCHEMA.to_frame()]
    for days in HORIZONS:
        for part, whole in _parts(data, days, network.shape.context):
            assert part.batch.targets is not None
            states = network.states_at(part.batch, part.max_len)
            alike = neutral.to(data.device).expand(len(states), -1)
            said = {
                NETWORK: network.read(states, part.batch),
                ALIKE: clocks_from(alike, torch.zeros((), device=data.device)),
            }
            found += [
                _table(name, days, clocks, part.batch.targets, order_value).filter(pl.Series(whole))
                for name, clocks in said.items()
            ]
    return pl.concat(found)


def _parts(data: Resident, days: int, mixed: bool) -> Iterator[tuple[Part, list[bool]]]:
    """Batches of all readouts, and which of these were observed for so many days."""
    assert data.truth is not None
    lengths = np.ones_like(data.lengths) if mixed else data.lengths
    for people in Sampler(lengths, data.counts, INNER_READOUTS, 4 * TOKENS_PER_BUCKET).in_order():
        whole = _whole(data, people, days)
        if any(whole):
            yield Part(data.batch(people, days=days), int(data.lengths[people].max()), 0), whole


def _whole(data: Resident, people: Ints, days: int) -> list[bool]:
    assert data.truth is not None
    rows = torch.from_numpy(data.rows(people)).to(data.home)
    seen: list[bool] = (data.truth.days[data.truth.which[rows]] >= days).tolist()
    return seen


def _table(name: str, days: int, clocks: Clocks, targets: Targets, order_value: float) -> pl.DataFrame:
    h = targets.horizon
    columns = (
        law.survival(clocks, h)[:, 0],
        law.expected_orders(clocks, h)[:, 0],
        law.expected_spend(clocks, h)[:, 0] * order_value,
        count_scores(clocks, targets),
        targets.orders[:, 0],
        (targets.gross - targets.refunds)[:, 0] * order_value,
    )
    said = {n: column.float().cpu().numpy() for n, column in zip(SAID, columns, strict=True)}
    return pl.DataFrame({**said, MODEL: name, HORIZON_DAYS: days}).select(
        pl.col(n).cast(kind) for n, kind in SCHEMA.items()
    )
