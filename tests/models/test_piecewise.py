"""Numbers as piecewise-linear codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retinue.models.piecewise import Lookup, PiecewiseLinear, fixed_edges, quantile_edges

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


EDGES = [
    [0.0, 2.0, 10.0, 11.0],
    [1.0, 1.0, 3.0, 7.0],
    [-5.0, 0.5, 0.5, 8.0],
    [4.0, 6.0, NAN, NAN],
    [9.0, NAN, NAN, NAN],
    [NAN] * 4,
]
SPECIAL = [-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 9.0, 10.0, 11.0, 3e38, -1e28, NAN, INF, -INF]


@given(
    st.lists(
        st.one_of(st.sampled_from(SPECIAL), st.floats(-(2.0**60), 2.0**60, width=32)), min_size=6, max_size=6
    )
)
def test_two_rows_of_a_table_say_what_the_codes_times_the_matrix_says(row: list[float]) -> None:
    codes = PiecewiseLinear(torch.tensor(EDGES))
    weight = torch.randn(5, codes.width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.tensor([row])
    look_up = Lookup.of(codes, weight)
    rows, shares = look_up(values)
    assert rows.shape == shares.shape == (1, 2 * len(EDGES))
    found = (look_up.table[rows] * shares[..., None]).sum(1)
    torch.testing.assert_close(found, codes(values).double() @ weight.T, rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", SPECIAL)
def test_the_shares_of_a_number_make_one(value: float) -> None:
    rows, shares = Lookup.of(PiecewiseLinear(torch.tensor(EDGES)), torch.ones(1, 24))(
        torch.full((2, 6), value)
    )
    assert torch.equal(shares[:, :6] + shares[:, 6:], torch.ones(2, 6))
    assert torch.equal(rows[0], rows[1])


def test_a_table_of_no_columns_has_no_rows() -> None:
    look_up = Lookup.of(PiecewiseLinear(torch.zeros(0, 5)), torch.zeros(3, 0))
    assert look_up.table.shape == (0, 3)
    assert [each.shape for each in look_up(torch.zeros(7, 0))] == [(7, 0), (7, 0)]
