"""From the features table to the sufficient statistics of the statistical models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from retinue.models.btyd import Histories
from retinue.models.fitting import Sample
from retinue.schema import (
    CUSTOMER_ID,
    FREQUENCY,
    NET_SPEND_EVER,
    RECENCY_DAYS,
    REFUND_VALUE_EVER,
    T_DAYS,
    VALUED_TRANSACTIONS,
    InputError,
)

KEYS = (FREQUENCY, RECENCY_DAYS, T_DAYS)


@dataclass(frozen=True)
class Statistics:
    """One base at one cutoff: distinct order histories, and each customer's money.

    distinct: rows of (x, t_x, T) with counts, in their total order; place: (customers,) row of `distinct` of each
        customer.
    transactions, gross, refunded: (customers,) float64; transactions of known amount, NaN money where none is.
    """

    distinct: Sample
    place: Tensor
    transactions: Tensor
    gross: Tensor
    refunded: Tensor

    @property
    def histories(self) -> Histories:
        """The distinct histories."""
        return Histories(*self.distinct.columns)


def statistics_of(buyers: pl.DataFrame) -> Statistics:
    """The statistics of customers who have ordered, in the table's row order.

    Args:
        buyers: features with no null frequency; net_spend_ever, refund_value_ever and valued_transactions may be
            absent (every transaction then counts as one of known amount).

    Raises:
        InputError: a history that cannot be (recency above T, negative counts).
    """
    _check(buyers)
    distinct = distinct_histories(buyers.lazy()).collect().with_row_index("place")
    placed = buyers.select(KEYS).join(distinct, on=list(KEYS), how="left", maintain_order="left")
    columns = torch.stack([_tensor(distinct[key]) for key in KEYS])
    net = _money(buyers, NET_SPEND_EVER, absent=np.nan)
    refunded = _money(buyers, REFUND_VALUE_EVER, absent=0.0)
    return Statistics(
        Sample(columns, _tensor(distinct["customers"])),
        torch.from_numpy(placed["place"].to_numpy().astype(np.int64)),
        _transactions(buyers),
        net + refunded,
        torch.where(torch.isnan(net), net, refunded),
    )


def distinct_histories(buyers: pl.LazyFrame) -> pl.LazyFrame:
    """Each order history that occurs, with how many `customers` have it, sorted."""
    return buyers.group_by(KEYS).len("customers").sort(KEYS)


def _transactions(buyers: pl.DataFrame) -> Tensor:
    """An order of unknown amount says nothing of value: it must not count as one of 0."""
    if VALUED_TRANSACTIONS in buyers.columns:
        return _tensor(buyers[VALUED_TRANSACTIONS])
    return _tensor(buyers[FREQUENCY]) + 1


def _check(buyers: pl.DataFrame) -> None:
    x, t_x, T = (pl.col(key) for key in KEYS)
    wrong = buyers.filter((x < 0) | (t_x < 0) | (t_x > T) | ((x == 0) != (t_x == 0)))
    if wrong.height:
        row = wrong.sort(CUSTOMER_ID).row(0, named=True)
        shown = ", ".join(f"{key} {row[key]}" for key in KEYS)
        raise InputError(
            f"features: customer '{row[CUSTOMER_ID]}' has {shown}; a history needs 0 ≤ recency ≤ T, with "
            f"recency 0 exactly where there is no repeat order ({wrong.height:,} such rows). Make the features again."
        )


def _tensor(column: pl.Series) -> Tensor:
    return torch.from_numpy(column.cast(pl.Float64).to_numpy().copy())


def _money(buyers: pl.DataFrame, name: str, absent: float) -> Tensor:
    if name not in buyers.columns:
        return torch.full((buyers.height,), absent, dtype=torch.float64)
    return _tensor(buyers[name].fill_null(absent))
