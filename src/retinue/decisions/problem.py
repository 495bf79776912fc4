"""An allocation problem: what each action for each customer brings, costs and takes of the limits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

NONE = -1  # the choice of no action
SLACK = 1e-9  # relative, for sums in floating point


@dataclass(frozen=True)
class Problem:
    """What there is to allocate; customers N, actions A, limits on money M, limits on counts C, floors G.

    Attributes:
        net: (N, A) expected gain less expected cost, account currency; -inf where an action may not be given.
        cost: (N, A) expected cost, account currency, ≥ 0.
        pays: (M, A) 1 where an action's cost counts against a budget.
        budgets: (M,) account currency.
        uses: (C, A) units that one contact takes of a capacity.
        capacities: (C,) in those units.
        group: (N,) floor that a customer counts for, -1 for none.
        floors: (G,) least customers with an action.
    """

    net: Array
    cost: Array
    pays: Array
    budgets: Array
    uses: Array
    capacities: Array
    group: Indices = field(default_factory=lambda: np.zeros(0, np.int64))
    floors: Array = field(default_factory=lambda: np.zeros(0))

    @property
    def limits(self) -> Array:
        """Budgets, capacities, then floors with a minus sign, as all usage is at most its limit; (R,)."""
        return np.concatenate([self.budgets, self.capacities, -self.floors])

    def groups(self, rows: slice | Indices) -> Indices:
        """Floors of some customers."""
        return self.group[rows] if len(self.floors) else np.full(len(self.net[rows]), -1)

    def some(self, rows: Indices, limits: Array) -> Problem:
        """The problem of a part of the customers under other limits."""
        m, c = len(self.budgets), len(self.capacities)
        group = self.groups(rows) if len(self.floors) else self.group
        return replace(
            self, net=self.net[rows], cost=self.cost[rows], group=group, budgets=limits[:m],
            capacities=limits[m : m + c], floors=-limits[m + c :],
        )  # fmt: skip

    def usage(self, choice: Indices) -> Array:
        """What a choice takes of each limit; (R,)."""
        rows = np.flatnonzero(choice != NONE)
        action = choice[rows]
        actions = self.net.shape[1]
        spent = np.bincount(action, self.cost[rows, action], actions)
        given = np.bincount(action, minlength=actions).astype(np.float64)
        reached = np.bincount(self.groups(rows) + 1, minlength=len(self.floors) + 1)[1:]
        return np.concatenate([self.pays @ spent, self.uses @ given, -reached.astype(np.float64)])

    def usage_of(self, row: int, action: int) -> Array:
        """What one action for one customer takes of each limit; (R,)."""
        reached = np.zeros(len(self.floors))
        if len(reached) and self.group[row] >= 0:
            reached[self.group[row]] = -1.0
        return np.concatenate([self.pays[:, action] * self.cost[row, action], self.uses[:, action], reached])

    def value(self, choice: Indices) -> float:
        """Net value of a choice."""
        rows = np.flatnonzero(choice != NONE)
        return float(self.net[rows, choice[rows]].sum())

    def fits(self, usage: Array) -> bool:
        """Whether no limit is broken, sums taken as floating point gives them."""
        return bool((usage <= self.limits + SLACK * np.maximum(np.abs(self.limits), 1.0)).all())

    def priced(self, rows: slice | Indices, prices: Array) -> Array:
        """Net value of each action at the prices of what it takes; (rows, A)."""
        m, c = len(self.budgets), len(self.capacities)
        priced = self.net[rows] - self.cost[rows] * (prices[:m] @ self.pays) - prices[m : m + c] @ self.uses
        if len(self.floors):
            # group -1 is the last: nothing
            priced += np.append(prices[m + c :], 0.0)[self.groups(rows)][:, None]
        return np.asarray(priced)

    def takes(self) -> Array:
        """What each action for each customer takes of each limit; (N, A, R), for few customers."""
        m, c = len(self.budgets), len(self.capacities)
        taken = np.zeros((*self.net.shape, len(self.limits)))
        taken[:, :, :m] = self.cost[:, :, None] * self.pays.T
        taken[:, :, m : m + c] = self.uses.T
        rows = np.flatnonzero(self.groups(slice(None)) >= 0)
        if len(rows):
            taken[rows, :, m + c + self.group[rows]] = -1.0
        return taken
