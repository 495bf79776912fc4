"""The page of a backtest: who wins by how much, fold by fold, with the row that predicts nothing beside."""

from __future__ import annotations

import polars as pl

from retinue.evaluation.campaign import campaign
from retinue.evaluation.comparison import ALL_ZERO
from retinue.forecasting.backtest import Backtest
from retinue.reporting.charts_backtest import (
    DRAWN,
    captured_chart,
    models,
    origin_chart,
    profit_chart,
    reliability_chart,
    said,
)
from retinue.reporting.figures import Chart, Grid
from retinue.reporting.pages import Card, Section, build_page
from retinue.reporting.words import Money, count, day, number, share
from retinue.schema import (
    BEST,
    CUSTOMERS,
    FINDING,
    METRIC,
    MODEL,
    ORIGIN,
    PASSED,
    POPULATION,
    SCORE,
    SCORE_ERROR,
    SENTINEL,
    VERSUS_BEST,
    VERSUS_BEST_ERROR,
    VERSUS_SIMPLEST,
    VERSUS_SIMPLEST_ERROR,
)

LEADING = (
    ("churn.auroc", "Churn AUROC", 3),
    ("churn.log_loss", "Churn log loss", 3),
    ("orders.log_score", "Orders log score", 3),
    ("orders.rmse", "Orders RMSE", 3),
    ("orders.bias_percent", "Orders error %", 1),
    ("value.gini", "Spend Gini", 3),
    ("value.captured_20", "In the top 20 %", 3),
    ("value.bias_percent", "Spend error %", 1),
    ("value.coverage_90", "In 90 % interval", 3),
)
WORDS = {name: words for name, words, _ in LEADING}


def build_backtest_page(name: str, currency: str, zone: str, found: Backtest) -> str:
    """One self-contained page of HTML; the same bytes for the same backtest."""
    folds = found.folds
    days = f"{count(folds.horizon_days)} days"
    listed = ", ".join(day(origin, zone) for origin in folds.origins)
    subtitle = f"{len(folds.origins)} origins ({listed}) · the {days} after each"
    sections = [
        _overview(found),
        _by_origin(found, zone),
        _worth(found, Money(currency)),
        _checks(found),
        _everything(found, zone),
    ]
    return build_page(f"{name}: backtest", subtitle, sections)


def pooled(found: Backtest, population: str = "all") -> pl.DataFrame:
    """Rows over all origins of one population."""
    return found.scores.filter((pl.col(POPULATION) == population) & pl.col(ORIGIN).is_null())


def leading_grid(found: Backtest, population: str = "all") -> Grid:
    """One row per leading metric, one column per forecaster: score ± standard error."""
    rows = {(r[MODEL], r[METRIC]): r for r in pooled(found, population).iter_rows(named=True)}
    lines = [
        (said(name), *(_with_error(rows.get((name, metric)), SCORE, SCORE_ERROR, digits) for metric, _,
        digits in LEADING)) for name in models(found) if any(key[0] == name for key in rows)
    ]  # fmt: skip
    return _turned(lines)


def _turned(lines: list[tuple[str, ...]]) -> Grid:
    """Metrics down, forecasters across."""
    columns = list(zip(("Score", *WORDS.values()), *lines, strict=True))
    return Grid(columns[0], tuple(columns[1:]))


def _with_error(row: dict[str, object] | None, value: str, error: str, digits: int) -> str:
    found, spread = (None, None) if row is None else (row[value], row[error])
    if not isinstance(found, float):
        return "–"
    return number(found, digits) + (f" ± {number(spread, digits)}" if isinstance(spread, float) else "")


def versus_grid(found: Backtest) -> Grid:
    """Differences from the simplest forecaster, paired by customer; those beyond two standard errors have a star."""
    rows = {(r[MODEL], r[METRIC]): r for r in pooled(found).iter_rows(named=True)}
    lines: list[tuple[str, ...]] = []
    for name in models(found)[1:]:
        if name == ALL_ZERO:
            continue
        cells = []
        for metric, _, digits in LEADING:
            row = rows[(name, metric)]
            told = _with_error(row, VERSUS_SIMPLEST, VERSUS_SIMPLEST_ERROR, digits)
            cells.append(told + (" *" if is_clear(row[VERSUS_SIMPLEST], row[VERSUS_SIMPLEST_ERROR]) else ""))
        lines.append((said(name), *cells))
    return _turned(lines)


def is_clear(gap: object, error: object) -> bool:
    """Whether a difference is beyond two of its standard errors."""
    return isinstance(gap, float) and isinstance(error, float) and abs(gap) > 2 * error


def lead(found: Backtest) -> str:
    """The result in a sentence: the best in ranking value and in log score, and whether that is clear."""
    lines = []
    for metric in ("orders.log_score", "value.gini"):
        rows = pooled(found).filter((pl.col(METRIC) == metric) & (pl.col(MODEL) != ALL_ZERO))
        best = rows[BEST][0] if rows.height else None
        if best is None:
            continue
        close = [
            said(r[MODEL])
            for r in rows.filter(pl.col(MODEL) != best).iter_rows(named=True)
            if not is_clear(r[VERSUS_BEST], r[VERSUS_BEST_ERROR])
        ]
        told = (
            f"; {', '.join(close)} within two standard errors of it"
            if close
            else ", by more than two standard errors"
        )
        lines.append(f"{WORDS[metric]}: {said(best)} is best{told if rows.height > 1 else ''}.")
    return " ".join(lines)


def _overview(found: Backtest) -> Section:
    simplest = said(models(found)[0])
    people = pooled(found)[CUSTOMERS][0]
    note = (
        f"{count(people)} forecasts: each customer known at an origin, at every origin. ± is one standard "
        f"error, clustered by "
        "customer, with the spread over seeds where a model is random. “All zero” says that nobody orders "
        "again: a score that "
        "it wins says little."
    )
    paired = (
        f"Paired on the same customers, model less {simplest}. A star marks what is beyond two standard "
        f"errors. Lower is better "
        "in log loss, log score and RMSE; for errors of totals and the interval, closer to 0 and to 0.9."
    )
    cards: list[tuple[Chart | Card, ...]] = [
        (Card("Scores over all origins", leading_grid(found), (note,), "folds"),)
    ]
    if len(models(found)) > 2:
        cards.append((Card(f"Differences from {simplest}", versus_grid(found), (paired,), "folds"),))
    for key, title in (("new", "New customers"), ("known", "Known customers")):
        if pooled(found, key).height:
            cards.append((Card(title, leading_grid(found, key), (), "folds"),))
    return Section("scores", "Who wins", lead(found), tuple(cards))


def _by_origin(found: Backtest, zone: str) -> Section:
    charts = [origin_chart(found, metric, zone) for metric in DRAWN]
    rows = tuple(tuple(charts[i : i + 2]) for i in range(0, len(charts), 2))
    return Section("origins", "Fold by fold", "A model that wins at one origin only has not won.", rows)


def _worth(found: Backtest, money: Money) -> Section:
    chosen = {
        name: ranking.chosen
        for name, ranking in campaign(found.entries, found.value).by_model.items()
        if name != ALL_ZERO
    }
    name, point = max(chosen.items(), key=lambda pair: pair[1].profit)
    told = (
        f"Each model stops where it expects the most profit. {said(name)} would have earned most so: "
        f"{money.short(point.profit)} from {share(point.share)} of the customers. These figures carry no standard errors."
    )
    return Section(
        "worth", "What it is worth", told, ((captured_chart(found, money), profit_chart(found, money)),)
    )


def _checks(found: Backtest) -> Section:
    lines = tuple(
        ("held" if row[PASSED] else "BROKEN", row[SENTINEL], said(row[MODEL]), row[FINDING])
        for row in found.sentinels.iter_rows(named=True)
    )
    held = bool(found.sentinels[PASSED].all())
    told = (
        "All sentinels held."
        if held
        else "A sentinel is broken: trust no score on this page until it is mended."
    )
    card = Card(
        "Sentinels",
        Grid(("", "Sentinel", "Model", "What was found"), lines, text_columns=4),
        (
            "Future scrambled: the same model with another future in the store must say the same. Labels "
            "permuted: against "
            "outcomes dealt out by lot, AUROC must lie within three standard errors of a half.",
        ),
    )
    return Section("checks", "Can it be trusted", told, ((reliability_chart(found),), (card,)))


def _everything(found: Backtest, zone: str) -> Section:
    cards: list[tuple[Chart | Card, ...]] = []
    for place, origin in enumerate([None, *found.folds.origins]):
        rows = found.scores.filter(
            (pl.col(POPULATION) == "all")
            & (pl.col(ORIGIN).is_null() if origin is None else pl.col(ORIGIN) == origin)
        )
        cells = {(r[METRIC], r[MODEL]): r for r in rows.iter_rows(named=True)}
        names, metrics = models(found), rows[METRIC].unique(maintain_order=True)
        lines = tuple(
            (m, *(_with_error(cells.get((m, n)), SCORE, SCORE_ERROR, 4) for n in names)) for m in metrics
        )
        title = "All origins" if origin is None else f"Origin {place}: {day(origin, zone)}"
        cards.append(
            (Card(title, Grid(("Metric", *(said(n) for n in names)), lines), (), "folds", hidden=True),)
        )
    return Section("all", "Every score", "± is one standard error, clustered by customer.", tuple(cards))
