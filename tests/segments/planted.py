"""Feature tables with groups planted in them."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl

from retinue.accel.engine import EngineChoice
from retinue.options import Engine, SegmentOptions

CUTOFF = datetime(2014, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
CPU = EngineChoice(Engine.cpu, "a test")
OPTIONS = SegmentOptions(max_segments=6, bootstraps=3)

# orders, spend, days since last, mean gap, discount share: typical values of each group
LOYAL = (24.0, 2400.0, 10.0, 30.0, 0.05)
LOST = (24.0, 2400.0, 700.0, 30.0, 0.05)
BARGAIN = (2.0, 60.0, 20.0, 90.0, 0.9)
ONCE = (1.0, 40.0, 400.0, 90.0, 0.05)
WHALE = (3.0, 9000.0, 300.0, 90.0, 0.05)


def base(
    *groups: tuple[tuple[float, ...], int], noise: float = 0.08, seed: int = 0, first: int = 0
) -> pl.DataFrame:
    """Customers of the groups given with their sizes; `group` says which one each came from."""
    random = np.random.default_rng(seed)
    rows = np.concatenate([np.tile(np.array(typical), (size, 1)) for typical, size in groups])
    rows[:, :4] *= np.exp(noise * random.standard_normal(rows[:, :4].shape))
    rows[:, 4] = np.clip(rows[:, 4] + noise / 4 * random.standard_normal(len(rows)), 0, 1)
    orders = np.maximum(1.0, np.round(rows[:, 0]))
    codes = random.permutation(10 * len(rows))[: len(rows)]
    return pl.DataFrame(
        {
            "customer_id": [f"c{first + i:05d}" for i in range(len(rows))],
            "customer": codes.astype(np.int64) + 10 * first,
            "cutoff": [CUTOFF] * len(rows),
            "orders_ever": orders,
            "frequency": orders - 1,
            "net_spend_ever": rows[:, 1],
            "average_order_value": rows[:, 1] / orders,
            "days_since_last": rows[:, 2],
            "gap_mean_days": np.where(orders > 1, rows[:, 3], np.nan),
            "recency_days": (orders - 1) * rows[:, 3],
            "T_days": rows[:, 2] + (orders - 1) * rows[:, 3] + 365,
            "discount_share": rows[:, 4],
            "group": np.repeat(np.arange(len(groups)), [size for _, size in groups]),
        }
    ).with_columns(pl.col("gap_mean_days").fill_nan(None), pl.col("cutoff").dt.cast_time_unit("us"))
