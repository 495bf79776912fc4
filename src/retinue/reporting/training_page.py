"""The page of a training run, one file: how it learnt, and how its network does on customers it has not seen."""

from __future__ import annotations

from typing import Any

import polars as pl

from retinue.reporting.charts_training import (
    decile_chart,
    horizon_chart,
    leaderboard,
    loss_chart,
    reliability_chart,
    score_chart,
)
from retinue.reporting.figures import Chart, Grid
from retinue.reporting.pages import Card, Section, build_page
from retinue.reporting.words import Money, count, number, share
from retinue.training.checkpoint import Trained

HEADS = ("Days", "Forecaster", "Readouts", "Log score", "AUROC", "Brier", "ECE", "Orders RMSE", "Bias %", "Gini",
         "Spend bias %")  # fmt: skip


def training_charts(trained: Trained, held: pl.DataFrame) -> tuple[Chart, ...]:
    """Every chart that the numbers at hand allow; without held-out customers, the curve alone."""
    if held.is_empty():
        return (loss_chart(trained.curve),)
    curve = (loss_chart(trained.curve), score_chart(trained.curve))
    return (*curve, horizon_chart(held), reliability_chart(held), decile_chart(held, Money("")))


def training_page(name: str, trained: Trained, held: pl.DataFrame) -> str:
    """The page as HTML text.

    Args:
        name: of the base.
        trained: card and curve.
        held: as `training.held_out.held_out` gives it; may be empty.
    """
    card, charts = trained.card, training_charts(trained, held)
    said = f"{card['shape']['encoder']}, {count(card['readouts'])} readouts of {count(card['customers'])} customers"
    sections = [Section("learning", "How it learnt", _spent(card), (charts[:2],))]
    if not held.is_empty():
        lead = "The network, before recalibration, beside one forecast for everybody."
        board = Card("Leaderboard", Grid(HEADS, _cells(leaderboard(held))))
        sections.append(
            Section("held-out", "Customers it has not seen", lead, ((board,), charts[2:4], charts[4:]))
        )
    return build_page(f"Training: {name}", said, sections)


def _spent(card: dict[str, Any]) -> str:
    told = f"Best at step {count(card['best_step'])}; {count(card['tokens_per_second'])} tokens a second"
    if card.get("matmul_share") is not None:
        told += f", {share(card['matmul_share'])} of what the machine does in plain matrix products"
    return f"{told}; {share(card['padding_waste'])} padding."


def _cells(board: pl.DataFrame) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (str(days), model, count(rows), *(number(score, 3) for score in scores))
        for days, model, rows, *scores in board.iter_rows()
    )
