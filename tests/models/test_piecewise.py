"""Numbers as piecewise-linear codes."""

from __future__ import annotations

import numpy as np
import torch

from retinue.models.piecewise import PiecewiseLinear, fixed_edges, quantile_edges

NAN, INF = float("nan"), float("inf")


def test_a_number_fills_the_bins_below_it() -> None:
    codes = PiecewiseLinear(torch.tensor([[0.0, 2.0, 10.0]]))
    found = codes(torch.tensor([[-1.0], [0.0], [1.0], [2.0], [4.0], [99.0], [NAN], [INF], [-INF]]))
    bins: list[list[float]] = [[0, 0], [0, 0], [0.5, 0], [1, 0], [1, 0.25], [1, 1], [0, 0], [1, 1], [0, 0]]
    flags = [0, 0, 0, 0, 0, 0, 1, 0, 0]
    assert found.tolist() == [[*row, flag] for row, flag in zip(bins, flags, strict=True)]


def test_edges_a_column_does_not_have_say_nothing() -> None:
    codes = PiecewiseLinear(torch.tensor([[0.0, 1.0, NAN], [NAN, NAN, NAN], [3.0, 3.0, 5.0]]))
    found = codes(torch.tensor([[0.5, 7.0, 4.0]]))
    assert found.tolist() == [[0.5, 0, 0, 0, 0, 0, 0, 0.5, 0]]
    assert codes.width == found.shape[1]


def test_edges_are_quantiles_of_a_spread_column() -> None:
    values = np.arange(1_201, dtype=np.float32)[::-1, None]
    assert quantile_edges(values, 12).tolist() == [[float(100 * i) for i in range(13)]]


def test_a_crowded_value_is_one_edge_and_the_rest_share_the_others() -> None:
    rest = np.arange(1, 111, dtype=np.float32)
    values = np.concatenate([np.zeros(900, np.float32), rest])[:, None]
    assert quantile_edges(values, 12)[0].tolist() == [0, 1, 11, 21, 31, 41, 51, 60, 70, 80, 90, 100, 110]


def test_few_null_and_constant_values() -> None:
    values = np.array([[0, 4, NAN], [1, 4, NAN], [NAN, INF, NAN], [1, 4, NAN]], np.float32)
    edges = quantile_edges(values, 3)
    expected = torch.tensor([[0, 1, NAN, NAN], [4, NAN, NAN, NAN], [NAN] * 4])
    assert torch.equal(edges.nan_to_num(-9), expected.nan_to_num(-9))
    assert PiecewiseLinear(edges)(torch.from_numpy(values)).isfinite().all()


def test_edges_do_not_depend_on_the_order_of_rows() -> None:
    values = np.random.default_rng(0).lognormal(size=(300, 4)).astype(np.float32).round(1)
    assert torch.equal(quantile_edges(values, 12), quantile_edges(values[::-1], 12))


def test_fixed_edges_are_filled_up() -> None:
    assert fixed_edges((0.0, 1.0), (2.0, 3.0, 4.0)).nan_to_num(-9).tolist() == [[0, 1, -9], [2, 3, 4]]
