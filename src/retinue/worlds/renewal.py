"""Expected orders of a gamma renewal process seen part-way through a gap, with a chance of loss at each order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincc, gammaln

from retinue.worlds.clock import Array

NEAR_GAPS = 24.0
NEAR_CELLS = 160
FAR_CELLS = 40
GAUSS_POINTS = 4
LARGEST_START = 400.0  # beyond, the tail of the gamma underflows, and is exponential anyway


@dataclass(frozen=True)
class Masses:
    """Cells of business time in mean gaps; (customers, cells), `edges` and `silent` with one column more.

    `silent` is P(no order yet) at cell ends, `orders` and `alive` allow for loss at orders only.
    """

    edges: Array
    orders: Array
    alive: Array
    silent: Array


def renewal_masses(k: Array, since: Array, reach: Array, chance: Callable[[Array], Array]) -> Masses:
    """Solves the renewal equation on a grid of up to 24 mean gaps and goes on at the long-run rate from there.

    Orders within a cell are taken as even, which makes the scheme second order: the share of next orders that falls l
    cells later is a second difference of ∫F (Cox 1962, chapter 4, in discrete form).

    Args:
        k: gamma shape; (customers,).
        since: mean gaps since the last order; (customers,).
        reach: mean gaps to the end of the longest horizon; (customers,).
        chance: business time from now, (customers, cells) -> chance of loss at an order then.
    """
    near = np.minimum(reach, NEAR_GAPS)[:, None]
    close = near * np.linspace(0, 1, NEAR_CELLS + 1)
    far = near + (reach[:, None] - near) * np.linspace(0, 1, FAR_CELLS + 1)[1:]
    edges = np.concatenate([close, far], axis=1)
    shape = k[:, None]
    start = np.minimum(k * since, LARGEST_START)[:, None]
    first = _falling(shape, start, shape * close)
    silent = 1 - _running(first)
    silent = np.concatenate([silent, _still_silent(shape, start, shape * far, silent[:, -1:])], axis=1)
    step = near / NEAR_CELLS
    stay = 1 - chance((close[:, 1:] + close[:, :-1]) / 2)
    orders = _solve(first, _passing(shape, step), stay)
    fade = shape * -np.expm1(np.log(stay[:, -1:]) / shape)  # long-run decay: 1 = stay · E[exp(fade · gap)]
    width = np.diff(edges[:, NEAR_CELLS:], axis=1)
    level = orders[:, -1:] / step * np.exp(-fade * (edges[:, NEAR_CELLS:-1] - near + step / 2))
    slow = fade * width < 1e-9
    later = level * np.where(slow, width, -np.expm1(-fade * width) / np.where(slow, 1.0, fade))
    orders = np.concatenate([orders, later], axis=1)
    leave = np.concatenate([1 - stay, np.repeat(1 - stay[:, -1:], FAR_CELLS, axis=1)], axis=1)
    lost = np.cumsum(leave * orders, axis=1)
    return Masses(edges, orders, np.clip(1 - lost + leave * orders / 2, 0.0, 1.0), silent)


def _falling(shape: Array, start: Array, x: Array) -> Array:
    """P(start + x_i < gap ≤ start + x_{i+1} | gap > start) for a gamma of this shape and rate 1; (customers, cells).

    The incomplete gamma function only in the first cell, where the density may have a pole; Gauss–Legendre beyond.
    """
    norm = gammaincc(shape, start)
    head = (norm - gammaincc(shape, start + x[:, 1:2])) / norm
    scale = -gammaln(shape) - np.log(norm)
    points, weights = np.polynomial.legendre.leggauss(GAUSS_POINTS)
    low, width = start + x[:, 1:-1], np.diff(x[:, 1:], axis=1)
    tail = np.zeros_like(width)
    for point, weight in zip(points, weights, strict=True):
        at = low + (point + 1) / 2 * width
        tail += weight / 2 * np.exp((shape - 1) * np.log(at) - at + scale)
    return np.concatenate([head, tail * width], axis=1)


def _still_silent(shape: Array, start: Array, x: Array, before: Array) -> Array:
    """P(gap > start + x | gap > start) at the far cells' ends; those of no width keep the value `before` them."""
    silent = np.repeat(before, FAR_CELLS, axis=1)
    long = x[:, -1] > x[:, 0]
    silent[long] = gammaincc(shape[long], (start + x)[long]) / gammaincc(shape[long], start[long])
    return silent


def _running(cells: Array) -> Array:
    """Sum of the cells up to each cell end, from zero."""
    return np.concatenate([np.zeros((len(cells), 1)), np.cumsum(cells, axis=1)], axis=1)


def _passing(shape: Array, step: Array) -> Array:
    """Share of gaps from somewhere in a cell that end l cells later, l = 0, 1, …; (customers, cells)."""
    x = shape * step * np.arange(NEAR_CELLS + 1)
    whole = _running(_falling(shape, np.zeros_like(shape), x))
    with np.errstate(divide="ignore"):
        density = np.exp(shape * np.log(x) - x - gammaln(shape + 1))
    total = (x * whole - shape * (whole - density)) / shape  # ∫F in mean gaps
    later = np.diff(total, n=2, axis=1) / step
    return np.concatenate([total[:, 1:2] / step, later], axis=1)


def _solve(first: Array, passing: Array, stay: Array) -> Array:
    orders, kept = np.zeros_like(first), np.zeros_like(first)
    for cell in range(first.shape[1]):
        earlier = np.einsum("nc,nc->n", kept[:, :cell], passing[:, cell:0:-1])
        orders[:, cell] = (first[:, cell] + earlier) / (1 - stay[:, cell] * passing[:, 0])
        kept[:, cell] = stay[:, cell] * orders[:, cell]
    return orders
