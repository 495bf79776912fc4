"""Each metric on a few rows that can be done by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.evaluation import metrics


def array(*values: float) -> metrics.Array:
    return np.array(values, dtype=float)


CHURNED, SAID = array(1, 0, 1, 0), array(0.9, 0.6, 0.5, 0.1)


def test_churn_scores() -> None:
    assert metrics.churn_auroc(CHURNED, SAID) == pytest.approx(3 / 4)
    assert metrics.churn_average_precision(CHURNED, SAID) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert metrics.brier(CHURNED, SAID) == pytest.approx((0.01 + 0.36 + 0.25 + 0.01) / 4)
    expected = -np.log([0.9, 0.4, 0.5, 0.9]).mean()
    assert metrics.churn_log_loss(CHURNED, SAID) == pytest.approx(expected)


def test_one_class_has_no_ranking() -> None:
    assert metrics.churn_auroc(array(1, 1), array(0.2, 0.3)) is None
    assert metrics.churn_average_precision(array(0, 0), array(0.2, 0.3)) is None
    assert metrics.churn_log_loss(array(1, 1), array(1.0, 0.5)) == pytest.approx(np.log(2) / 2)


def test_reliability_and_calibration_error() -> None:
    churned, said = array(1, 0, 1, 1), array(0.5, 0.55, 0.95, 1.0)
    rows = metrics.reliability(churned, said)
    assert [(row["from"], row["customers"], row["realised"]) for row in rows] == [
        (0.5, 2, 0.5),
        (0.9, 2, 1.0),
    ]
    assert metrics.expected_calibration_error(churned, said) == pytest.approx(0.5 * 0.025 + 0.5 * 0.025)


def test_errors_and_bias() -> None:
    assert metrics.rmse(array(0, 4), array(1, 1)) == pytest.approx(np.sqrt(5))
    assert metrics.mae(array(0, 4), array(1, 1)) == 2
    assert metrics.bias_percent(array(1, 3), array(2, 4)) == pytest.approx(50)
    assert metrics.bias_percent(array(0, 0), array(2, 4)) is None


def test_gini_is_one_for_the_right_order_minus_one_for_the_wrong_and_zero_for_none() -> None:
    value = array(10, 0, 5, 1)
    assert metrics.normalised_gini(value, array(4, 1, 3, 2)) == pytest.approx(1)
    assert metrics.normalised_gini(value, array(1, 4, 2, 3)) == pytest.approx(-1)
    assert metrics.normalised_gini(value, array(7, 7, 7, 7)) == pytest.approx(0)
    assert metrics.normalised_gini(array(0, 0), array(1, 2)) is None
    assert metrics.normalised_gini(array(3, 3), array(1, 2)) is None


def test_gini_by_hand() -> None:
    # ranks of the prediction 3, 1, 2: Σ value·(2·rank - n - 1) = 2·2 + 0·(-2) + 4·0 = 4 of a perfect 4·2 + 2·0
    assert metrics.normalised_gini(array(2, 0, 4), array(9, 1, 5)) == pytest.approx(4 / 8)


@given(st.permutations(range(6)))
def test_gini_does_not_depend_on_the_order_of_rows(order: list[int]) -> None:
    value, said = array(5, 0, 0, 2, 9, 1), array(1, 1, 0, 3, 3, 2)
    assert metrics.normalised_gini(value[order], said[order]) == pytest.approx(
        metrics.normalised_gini(value, said)
    )


def test_rank_correlation_of_a_constant_is_undefined() -> None:
    assert metrics.rank_correlation(array(1, 2, 3), array(2, 4, 9)) == pytest.approx(1)
    assert metrics.rank_correlation(array(1, 2, 3), array(2, 2, 2)) is None


def test_deciles_hold_everyone_once_best_first() -> None:
    said = np.arange(25, dtype=float)
    rows = metrics.deciles(said * 2, said)
    assert [row["customers"] for row in rows] == [3, 3, 3, 3, 3, 2, 2, 2, 2, 2]
    assert rows[0] == {"decile": 1, "customers": 3, "predicted": 23.0, "realised": 46.0}
    assert len(metrics.deciles(array(1, 2), array(3, 4))) == 2


def test_coverage_counts_the_edges() -> None:
    assert metrics.coverage(array(0, 1, 2, 3), array(0, 0, 0, 0), array(0, 1, 1, 1)) == 0.5
    assert metrics.width(array(0, 1), array(2, 5)) == 3
