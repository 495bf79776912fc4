"""Plain names: what a marketer would call the people of a segment, from what sets them apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from retinue.options import SegmentOptions
from retinue.schema import SEGMENT
from retinue.segments.lifecycle import silence
from retinue.segments.scaling import Matrix
from retinue.segments.traits import DISCOUNT, ORDERS, RETURNS, SPEND, Choice, Trait

CLEARLY = 0.5
HIGH_RANK = 0.7
LOW_RANK = 0.3
RATE_STEP = 0.1


@dataclass(frozen=True)
class Portrait:
    """Typical figures of one segment, each with its rank in the base (share below, ties half)."""

    orders: float | None
    spend_rank: float
    orders_rank: float
    silence: float | None
    age_days: float | None
    discount_above_base: float
    returns_above_base: float


def portraits(
    table: pl.DataFrame, ids: tuple[int, ...], choices: list[Choice], typical_gap: float
) -> list[Portrait]:
    """One portrait per identity.

    Args:
        table: features with `segment`.
        ids: identities, in the order wanted.
        choices: traits of the model.
        typical_gap: the base's, days.
    """
    table = table.with_columns(silence(table, typical_gap).alias("silence"))
    column = {choice.trait.name: choice.column for choice in choices}
    return [_portrait(table, table.filter(pl.col(SEGMENT) == i), column) for i in ids]


def _portrait(base: pl.DataFrame, own: pl.DataFrame, column: dict[str, str]) -> Portrait:
    def rank(trait: Trait) -> float:
        name = column.get(trait.name)
        typical = _median(own, name)
        if name is None or typical is None:
            return 0.5
        known = base[name].drop_nulls()
        return (int((known < typical).sum()) + int((known <= typical).sum())) / (2 * len(known))

    def above(trait: Trait) -> float:
        name = column.get(trait.name)
        return 0.0 if name is None else _mean(own, name) - _mean(base, name)

    return Portrait(
        orders=_median(own, column.get(ORDERS.name)),
        spend_rank=rank(SPEND),
        orders_rank=rank(ORDERS),
        silence=_median(own, "silence"),
        age_days=_median(own, "T_days"),
        discount_above_base=above(DISCOUNT),
        returns_above_base=above(RETURNS),
    )


def _median(table: pl.DataFrame, name: str | None) -> float | None:
    if name is None or name not in table.columns:
        return None
    value = table[name].cast(pl.Float64).median()
    return value if isinstance(value, float) else None


def _mean(table: pl.DataFrame, name: str) -> float:
    known = (
        table[name].cast(pl.Float64).drop_nulls().sort()
    )  # sorted, so that row order does not show in the sum
    value = known.mean()
    return value if isinstance(value, float) else 0.0


def plain_name(portrait: Portrait, options: SegmentOptions) -> str:
    """E.g. "Frequent big spenders, active" or "One-time bargain buyers, long silent"."""
    bargain = portrait.discount_above_base >= RATE_STEP
    spender = "big spenders" if portrait.spend_rank >= HIGH_RANK else ""
    spender = "small spenders" if portrait.spend_rank <= LOW_RANK else spender
    noun = (
        f"bargain-hunting {spender}"
        if bargain and spender
        else "bargain buyers"
        if bargain
        else spender or "buyers"
    )
    returning = "who return a lot" if portrait.returns_above_base >= RATE_STEP else ""
    head = " ".join(word for word in (_frequency(portrait), noun, returning) if word)
    tempo = _tempo(portrait, options)
    return head[0].upper() + head[1:] + (f", {tempo}" if tempo else "")


def _frequency(portrait: Portrait) -> str:
    if portrait.orders is None:
        return ""
    if portrait.orders < 2:
        return "one-time"
    if portrait.orders >= 3 and portrait.orders_rank >= HIGH_RANK:
        return "frequent"
    return "occasional" if portrait.orders < 3 or portrait.orders_rank <= LOW_RANK else "regular"


def _tempo(portrait: Portrait, options: SegmentOptions) -> str:
    """The lifecycle of the segment's typical customer, in words that fit its stages."""
    if portrait.age_days is not None and portrait.age_days < options.new_days:
        return "new"
    if portrait.silence is None:
        return ""
    if portrait.silence > options.lapsed_ratio:
        return "long gone"
    if portrait.silence > options.dormant_ratio:
        return "long silent"
    return "cooling" if portrait.silence > options.cooling_ratio else "active"


def distinct_names(names: list[str], centroids: Matrix, choices: list[Choice], taken: set[str]) -> list[str]:
    """The names, those that coincide told apart by the trait in which their segments lie furthest apart.

    Args:
        names: one per segment.
        centroids: (segments, features) in scaled units.
        choices: traits, one per feature.
        taken: names that are not free.
    """
    done = list(names)
    for name in dict.fromkeys(names):
        rows = [i for i, own in enumerate(names) if own == name]
        for row, tail in _tails(rows, centroids, choices, frozenset()).items():
            done[row] = f"{name}, with {tail}" if tail else name
    for row, name in enumerate(done):
        copies, free = 2, name
        while free in taken or free in done[:row]:
            free, copies = f"{name} ({copies})", copies + 1
        done[row] = free
    return done


def _tails(rows: list[int], centroids: Matrix, choices: list[Choice], used: frozenset[int]) -> dict[int, str]:
    """Halves a group at the widest gap of its most telling unused trait until each stands alone."""
    free = [i for i in range(len(choices)) if i not in used]
    spread = [float(np.round(np.ptp(centroids[rows, i]), 6)) for i in free]
    if len(rows) < 2 or not free or max(spread) <= 0:
        return dict.fromkeys(rows, "")
    trait = free[int(np.argmax(spread))]
    ordered = sorted(rows, key=lambda row: (centroids[row, trait], row))
    gaps = np.diff([centroids[row, trait] for row in ordered])
    cut = int(np.argmax(np.round(gaps, 6))) + 1
    halves = ((ordered[:cut], choices[trait].trait.low), (ordered[cut:], choices[trait].trait.high))
    found = {}
    for half, word in halves:
        for row, more in _tails(half, centroids, choices, used | {trait}).items():
            found[row] = f"{word} and {more}" if more else word
    return found


def sets_apart(centroids: Matrix, weights: Matrix, choices: list[Choice]) -> list[str]:
    """Up to three phrases per segment: the traits furthest from the base's mean, at least half a unit.

    Args:
        centroids: (segments, features) in scaled units.
        weights: (segments,) customers.
        choices: traits, one per feature.
    """
    away = np.round(centroids - np.average(centroids, axis=0, weights=weights), 6)
    phrases = []
    for row in away:
        order = [int(i) for i in np.argsort(-np.abs(row), kind="stable") if abs(row[i]) >= CLEARLY][:3]
        phrases.append(
            ", ".join(choices[i].trait.high if row[i] > 0 else choices[i].trait.low for i in order)
        )
    return phrases
