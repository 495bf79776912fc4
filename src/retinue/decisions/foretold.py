"""What the base model foretells of everyone at any past cutoff: nothing is fitted, and nothing later is read."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from retinue.events.store import Store
from retinue.forecasting.rungs import fit_rung, training_at
from retinue.options import Options, Rung
from retinue.schema import CLV, CUSTOMER_ID, EXPECTED_ORDERS, EXPECTED_SPEND, P_CHURN


def foretold(
    store: Store, cutoff: datetime, days: int, options: Options
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Margin, orders, chance of an order and clv of every customer who had ordered, and the features behind them.

    Args:
        store: prepared events.
        cutoff: end of history.
        days: length of the window foretold.
        options: value and engine.

    Returns:
        customer_id with foretold_margin, foretold_orders, foretold_kept and foretold_clv; and the features, in the same
        order of customers.
    """
    training = training_at(store, cutoff, [days], options, with_past=False)
    said = fit_rung(Rung.zero_shot, training)(training.buyers, [days])
    told = said.select(
        CUSTOMER_ID,
        (pl.col(EXPECTED_SPEND) * options.value.margin_rate).alias("foretold_margin"),
        pl.col(EXPECTED_ORDERS).alias("foretold_orders"),
        (1 - pl.col(P_CHURN)).alias("foretold_kept"),
        pl.col(CLV).alias("foretold_clv"),
    )
    return told, told.select(CUSTOMER_ID).join(
        training.buyers, on=CUSTOMER_ID, how="left", maintain_order="left"
    )
