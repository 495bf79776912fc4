"""The best choice for a few hundred customers under limits: a beam search that is bounded in time and memory.

At the prices of the limits every customer loses something by not taking the best action; whoever would lose more than
the gap between bound and incumbent keeps it (reduced-cost fixing). The others are decided one by one, widest losses
first, over at most `WIDTH` + `BINS` partial choices: half are those nearest to using the limits up at the least loss,
the rest the least loss at each usage, as in dynamic programming over a knapsack's capacity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retinue.decisions.problem import NONE, SLACK, Array, Indices, Problem

WIDTH = 8_000
BINS = 4_000


@dataclass(frozen=True)
class _Open:
    """The customers still to decide, R limits.

    Attributes:
        rows: their places in the problem.
        loss: (N, A + 1) at the prices, inf where not allowed; no action is the last column.
        takes: (N, A + 1, R) of each limit.
        allowed: (N, A + 1) what can be part of a better choice.
        least, most: (rows + 1, R) what the customers from a place on take together at least and at most.
        default: (rows + 1, R) what they take if each gets the best.
    """

    rows: Indices
    loss: Array
    takes: Array
    allowed: NDArray[np.bool_]
    least: Array
    most: Array
    default: Array


def search(problem: Problem, choice: Indices, prices: Array) -> Indices:
    """The best choice found; the given one where none is better.

    Args:
        problem: of a few hundred customers.
        choice: (N,) the incumbent.
        prices: (R,) of the limits.
    """
    count, actions = problem.net.shape
    if not count or not actions:
        return choice
    worth = np.column_stack([problem.priced(slice(None), prices), np.zeros(count)])
    best = worth.argmax(axis=1)
    loss = worth[np.arange(count), best][:, None] - worth
    # a choice that breaks a limit is no incumbent: any that fits is better
    gap = np.inf
    if problem.fits(problem.usage(choice)):
        gap = worth.max(axis=1).sum() + prices @ problem.limits - problem.value(choice)
    allowed = np.isfinite(loss) & ((loss < gap) | (np.arange(actions + 1) == best[:, None]))
    takes = np.concatenate([problem.takes(), np.zeros((count, 1, len(problem.limits)))], axis=1)
    fixed = np.flatnonzero(allowed.sum(axis=1) == 1)
    used = takes[fixed, best[fixed]].sum(axis=0)
    found = _decided(_open(loss, takes, allowed, best), used, problem.limits, prices, gap)
    if found is None:
        return choice
    rows, chosen = found
    again = best.copy()
    again[rows] = chosen
    return np.where(again == actions, NONE, again)


def _open(loss: Array, takes: Array, allowed: NDArray[np.bool_], best: Indices) -> _Open:
    rows = np.flatnonzero(allowed.sum(axis=1) > 1)
    second = np.partition(np.where(allowed, loss, np.inf)[rows], 1, axis=1)[:, 1]
    rows = rows[np.argsort(-second, kind="stable")]
    mine, can = takes[rows], allowed[rows][:, :, None]
    parts = (
        np.where(can, mine, np.inf).min(axis=1, initial=np.inf),
        np.where(can, mine, -np.inf).max(axis=1, initial=-np.inf),
        mine[np.arange(len(rows)), best[rows]],
    )
    nothing = np.zeros((1, takes.shape[2]))
    least, most, default = (np.vstack([np.cumsum(part[::-1], axis=0)[::-1], nothing]) for part in parts)
    return _Open(rows, loss, takes, allowed, least, most, default)


def _decided(
    still: _Open, used: Array, limits: Array, prices: Array, gap: float
) -> tuple[Indices, Indices] | None:
    """The open customers and what each gets in the best choice found; None where none fits or betters the incumbent."""
    slack = SLACK * np.maximum(np.abs(limits), 1.0)
    loss, usage = np.zeros(1), used[None]
    back: list[tuple[Indices, Indices]] = []
    for place, row in enumerate(still.rows, 1):
        options = np.flatnonzero(still.allowed[row])
        more = (loss[:, None] + still.loss[row, options]).ravel()
        takes = (usage[:, None] + still.takes[row, options]).reshape(len(more), len(limits))
        unused = np.maximum(limits - takes - still.most[place], 0.0) @ prices
        kept = np.flatnonzero(
            (more + unused < gap) & (takes + still.least[place] <= limits + slack).all(axis=1)
        )
        if not len(kept):
            return None
        if len(kept) > WIDTH + BINS:
            left = (limits - takes[kept] - still.default[place]) @ prices
            away = np.abs(limits - takes[kept] - still.default[place]) @ prices
            kept = kept[_beam(more[kept], away, left)]
        back.append((kept // len(options), options[kept % len(options)]))
        loss, usage = more[kept], takes[kept]
    at, chosen = int(np.argmax(usage @ prices - loss)), np.zeros(len(still.rows), np.int64)
    for place in range(len(still.rows) - 1, -1, -1):
        before, options = back[place]
        at, chosen[place] = int(before[at]), options[at]
    return still.rows, chosen


def _beam(loss: Array, away: Array, left: Array) -> Indices:
    """Which partial choices to go on with: `WIDTH` by loss and what is used beside the limits, then one per bin of usage."""
    order = np.argpartition(loss + away, WIDTH)
    near, others = order[:WIDTH], order[WIDTH:]
    span = left[others] - left[others].min()
    bins = np.minimum(span / max(float(span.max()), np.finfo(float).tiny) * BINS, BINS - 1).astype(np.int64)
    ranked = np.lexsort((loss[others], bins))
    first = np.flatnonzero(np.diff(bins[ranked], prepend=-1))
    return np.concatenate([near, others[ranked[first]]])
