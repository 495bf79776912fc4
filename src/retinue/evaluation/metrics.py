"""Scores of forecasts against what came true: pure functions of arrays (rows,); undefined is None, never NaN."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

Array = NDArray[np.float64]
BINS = 10


def churn_auroc(churned: Array, p_churn: Array) -> float | None:
    """Area under the ROC curve; None where only one class came true."""
    return float(roc_auc_score(churned, p_churn)) if _two_classes(churned) else None


def churn_average_precision(churned: Array, p_churn: Array) -> float | None:
    """Average precision of finding churners; None where only one class came true."""
    return float(average_precision_score(churned, p_churn)) if _two_classes(churned) else None


def brier(churned: Array, p_churn: Array) -> float:
    """Mean squared error of the probability."""
    return float(np.mean((p_churn - churned) ** 2))


def churn_log_loss(churned: Array, p_churn: Array) -> float:
    """Mean negative log-likelihood, in nats; probabilities are kept one rounding error away from 0 and 1."""
    return float(log_loss(churned, p_churn, labels=[0.0, 1.0]))


def reliability(churned: Array, p_churn: Array, bins: int = BINS) -> list[dict[str, float | int]]:
    """Predicted against realised churn in equal-width bins of p_churn; empty bins have no row."""
    place = np.minimum((p_churn * bins).astype(int), bins - 1)
    return [
        {
            "from": i / bins,
            "to": (i + 1) / bins,
            "customers": int((place == i).sum()),
            "predicted": float(p_churn[place == i].mean()),
            "realised": float(churned[place == i].mean()),
        }
        for i in range(bins)
        if (place == i).any()
    ]


def expected_calibration_error(churned: Array, p_churn: Array, bins: int = BINS) -> float:
    """Mean gap between predicted and realised churn over the bins of `reliability`, weighted by customers."""
    table = reliability(churned, p_churn, bins)
    return float(
        sum(row["customers"] * abs(row["predicted"] - row["realised"]) for row in table) / len(churned)
    )


def rmse(realised: Array, predicted: Array) -> float:
    """Root mean squared error."""
    return float(np.sqrt(np.mean((predicted - realised) ** 2)))


def mae(realised: Array, predicted: Array) -> float:
    """Mean absolute error."""
    return float(np.mean(np.abs(predicted - realised)))


def bias_percent(realised: Array, predicted: Array) -> float | None:
    """100 × (total predicted / total realised - 1); None where nothing was realised."""
    total = realised.sum()
    return float(100 * (predicted.sum() / total - 1)) if total > 0 else None


def normalised_gini(realised: Array, predicted: Array) -> float | None:
    """Gini of realised value ranked by the prediction, over that of a perfect ranking; ties share a rank.

    1 is a perfect order, 0 chance. Negative realised values count as zero; None where all realised values are
    equal.
    """
    value = np.maximum(realised, 0.0)
    perfect = _covered(value, value)
    return float(_covered(value, predicted) / perfect) if perfect > 1e-12 * value.sum() else None


def _covered(value: Array, order: Array) -> float:
    """Twice the area between the Lorenz curve in this order and the diagonal, in units of total value."""
    rows = len(value)
    return float(np.dot(value, 2 * rankdata(order) - rows - 1) / rows)


def rank_correlation(realised: Array, predicted: Array) -> float | None:
    """Spearman's rho; None where either side is constant."""
    if np.ptp(realised) == 0 or np.ptp(predicted) == 0:
        return None
    return float(spearmanr(realised, predicted).statistic)


def deciles(realised: Array, predicted: Array, groups: int = 10) -> list[dict[str, float | int]]:
    """Ten groups of customers by prediction, best first: how many, mean predicted, mean realised; none is empty."""
    order = np.argsort(-predicted, kind="stable")
    return [
        {
            "decile": i + 1,
            "customers": len(part),
            "predicted": float(predicted[part].mean()),
            "realised": float(realised[part].mean()),
        }
        for i, part in enumerate(np.array_split(order, groups))
        if len(part)
    ]


def coverage(realised: Array, lower: Array, upper: Array) -> float:
    """Share of rows within [lower, upper]."""
    return float(np.mean((lower <= realised) & (realised <= upper)))


def width(lower: Array, upper: Array) -> float:
    """Mean length of the interval."""
    return float(np.mean(upper - lower))


def _two_classes(churned: Array) -> bool:
    return bool(0 < churned.sum() < len(churned))
