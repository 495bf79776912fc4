"""A segment in words: who they are, what moves them, what to offer and what not."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from retinue.decisions.causes import NO_REASON
from retinue.decisions.decide import NOTHING
from retinue.schema import (
    ACTION,
    BINDING,
    CLV,
    CUSTOMER_ID,
    CUSTOMERS,
    CUTOFF,
    DESCRIPTION,
    DIMENSION,
    EXPECTED_COST,
    EXPECTED_GAIN,
    GROUP,
    NAMED_CAUSE,
    P_CHURN,
    SEGMENT,
    SEGMENT_NAME,
    SETS_APART,
    VALUE_AT_STAKE,
)

LEAST_SHARE = 0.02
MOST = 3
STRIKING = 1.3


@dataclass(frozen=True)
class Playbook:
    """What a marketer reads of one segment; texts are sentences, empty where there is nothing to say."""

    segment: int
    name: str
    customers: int
    at_stake: float
    clv: float
    risk: float
    who: str
    causes: tuple[tuple[str, float], ...]
    buys: tuple[str, ...]
    offer: tuple[tuple[str, int, float, float], ...]
    leave: tuple[tuple[str, int], ...]


def playbooks(
    decisions: pl.DataFrame,
    forecasts: pl.DataFrame,
    segments: pl.DataFrame,
    profiles: pl.DataFrame,
    buys: pl.DataFrame,
) -> list[Playbook]:
    """One playbook per segment with customers, most value at stake first.

    Args:
        decisions: at the cutoff, with actions and causes.
        forecasts: at the same cutoff and horizon, one row per customer.
        segments: at the cutoff.
        profiles: the `segment_profiles` table.
        buys: the `top_buys` table.
    """
    rows = decisions.join(
        segments.select(CUSTOMER_ID, CUTOFF, SEGMENT, SEGMENT_NAME), on=[CUSTOMER_ID, CUTOFF], how="left"
    )
    rows = rows.join(
        forecasts.select(CUSTOMER_ID, CUTOFF, P_CHURN, CLV), on=[CUSTOMER_ID, CUTOFF], how="left"
    )
    words = {row[SEGMENT]: row for row in profiles.to_dicts()}
    made = []
    for (segment, name), part in rows.filter(pl.col(SEGMENT).is_not_null()).group_by(SEGMENT, SEGMENT_NAME):
        told = words.get(segment, {})
        who = "; ".join(text.rstrip(". ") for text in (told.get(DESCRIPTION), told.get(SETS_APART)) if text)
        made.append(
            Playbook(
                int(str(segment)), str(name), part.height, float(part[VALUE_AT_STAKE].sum()), float(part[CLV].sum()),
                float(part[P_CHURN].sum()) / part.height, who, _causes(part), _buys(buys, segment), _offers(part), _left(part),
            )
        )  # fmt: skip
    return sorted(made, key=lambda one: (-one.at_stake, one.segment))


def _causes(part: pl.DataFrame) -> tuple[tuple[str, float], ...]:
    """Named causes with the share of customers for whom one was looked for."""
    if NAMED_CAUSE not in part.columns:
        return ()
    looked = part.filter(pl.col(NAMED_CAUSE).is_not_null())
    counts = (
        looked.filter(pl.col(NAMED_CAUSE) != NO_REASON)
        .group_by(NAMED_CAUSE)
        .len()
        .sort("len", NAMED_CAUSE, descending=[True, False])
    )
    shares = [(str(name), n / max(looked.height, 1)) for name, n in counts.iter_rows()]
    return tuple(one for one in shares[:MOST] if one[1] >= LEAST_SHARE)


def _buys(buys: pl.DataFrame, segment: object) -> tuple[str, ...]:
    """Categories that the segment buys clearly more of than the base."""
    mine = buys.filter((pl.col(SEGMENT) == segment) & (pl.col(DIMENSION) == "category"))
    return tuple(mine.filter(pl.col("lift") >= STRIKING)[GROUP].head(MOST).to_list())


def _offers(part: pl.DataFrame) -> tuple[tuple[str, int, float, float], ...]:
    """Actions given: name, customers, cost, net gain; the most profitable first."""
    if ACTION not in part.columns:
        return ()
    sums = (
        part.filter(pl.col(ACTION) != NOTHING)
        .group_by(ACTION)
        .agg(
            pl.len().alias(CUSTOMERS),
            pl.col(EXPECTED_COST).sum(),
            (pl.col(EXPECTED_GAIN) - pl.col(EXPECTED_COST)).sum().alias("net"),
        )
        .sort("net", ACTION, descending=[True, False])
    )
    return tuple(
        (str(name), int(n), float(cost), float(net)) for name, n, cost, net in sums.head(MOST).iter_rows()
    )


def _left(part: pl.DataFrame) -> tuple[tuple[str, int], ...]:
    """Why the others get nothing, the commonest reason first."""
    if ACTION not in part.columns:
        return ()
    none = (
        part.filter(pl.col(ACTION) == NOTHING)
        .group_by(BINDING)
        .len()
        .sort("len", BINDING, descending=[True, False])
    )
    return tuple((str(why), int(n)) for why, n in none.head(2).iter_rows())
