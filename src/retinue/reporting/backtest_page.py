"""The page of a backtest: who wins by how much, fold by fold, with the row that predicts nothing beside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from retinue.evaluation.comparison import ALL_ZERO
from retinue.evaluation.metrics import reliability
from retinue.evaluation.profit import SHARES, top
from retinue.forecasting.backtest import Backtest
from retinue.reporting.figures import Chart, Figure, Grid, axis, colour
from retinue.reporting.pages import Card, Section, build_page
from retinue.reporting.words import Money, count, day, model_name, number, share
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

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
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
DRAWN = ("value.gini", "churn.auroc", "orders.log_score", "orders.bias_percent")
WORDS = {name: words for name, words, _ in LEADING}
MEANING = {
    "value.gini": "How well spend is ranked; 0 is chance, 1 is perfect.",
    "churn.auroc": "How well churn is ranked; a half is chance, 1 is perfect.",
    "orders.log_score": "How surprising the number of orders was, in nats; lower is better.",
    "orders.bias_percent": "Error of the total of orders; 0 is best.",
}


def build_backtest_page(name: str, currency: str, zone: str, found: Backtest) -> str:
    """One self-contained page of HTML; the same bytes for the same backtest."""
    folds = found.folds
    days = f"{count(folds.horizon_days)} days"
    listed = ", ".join(day(origin, zone) for origin in folds.origins)
    subtitle = f"{len(folds.origins)} origins ({listed}) · the {days} after each"
    sections = [
        _overview(found),
        _by_origin(found, zone),
        _checks(found, Money(currency)),
        _everything(found, zone),
    ]
    return build_page(f"{name}: backtest", subtitle, sections)


def pooled(found: Backtest, population: str = "all") -> pl.DataFrame:
    """Rows over all origins of one population."""
    return found.scores.filter((pl.col(POPULATION) == population) & pl.col(ORIGIN).is_null())


def models(found: Backtest) -> list[str]:
    """Forecasters, simplest first, the all-zero row last."""
    return [entry.model for entry in found.entries]


def leading_grid(found: Backtest, population: str = "all") -> Grid:
    """One row per leading metric, one column per forecaster: score ± standard error."""
    rows = {(r[MODEL], r[METRIC]): r for r in pooled(found, population).iter_rows(named=True)}
    lines = [
        (_said(name), *(_with_error(rows.get((name, metric)), SCORE, SCORE_ERROR, digits) for metric, _,
        digits in LEADING)) for name in models(found) if any(key[0] == name for key in rows)
    ]  # fmt: skip
    return _turned(lines)


def _turned(lines: list[tuple[str, ...]]) -> Grid:
    """Metrics down, forecasters across."""
    columns = list(zip(("Score", *WORDS.values()), *lines, strict=True))
    return Grid(columns[0], tuple(columns[1:]))


def _said(model: str) -> str:
    return "All zero" if model == ALL_ZERO else model_name(model)


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
        lines.append((_said(name), *cells))
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
            _said(r[MODEL])
            for r in rows.filter(pl.col(MODEL) != best).iter_rows(named=True)
            if not is_clear(r[VERSUS_BEST], r[VERSUS_BEST_ERROR])
        ]
        told = (
            f"; {', '.join(close)} within two standard errors of it"
            if close
            else ", by more than two standard errors"
        )
        lines.append(f"{WORDS[metric]}: {_said(best)} is best{told if rows.height > 1 else ''}.")
    return " ".join(lines)


def _overview(found: Backtest) -> Section:
    simplest = _said(models(found)[0])
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
    charts = [_origin_chart(found, metric, zone) for metric in DRAWN]
    rows = tuple(tuple(charts[i : i + 2]) for i in range(0, len(charts), 2))
    return Section("origins", "Fold by fold", "A model that wins at one origin only has not won.", rows)


def _line(
    i: int, model: str, x: Sequence[object], y: Sequence[float | None], mode: str = "lines+markers"
) -> Figure:
    return {
        "type": "scatter",
        "mode": mode,
        "name": _said(model),
        "x": list(x),
        "y": list(y),
        "line": {"color": colour(f"line-{i % 6}"), "width": 2, "dash": DASHES[i % 6]},
        "hovertext": [f"{_said(model)}: {number(v, 3)}" for v in y],
        "hoverinfo": "text",
    }


def _origin_chart(found: Backtest, metric: str, zone: str) -> Chart:
    rows = found.scores.filter(
        (pl.col(POPULATION) == "all") & (pl.col(METRIC) == metric) & pl.col(ORIGIN).is_not_null()
    )
    names = [name for name in models(found) if name != ALL_ZERO]
    labels = [day(origin, zone) for origin in found.folds.origins]
    lines = {name: rows.filter(pl.col(MODEL) == name).sort(ORIGIN)[SCORE].to_list() for name in names}
    last = {name: values[-1] for name, values in lines.items()}
    told = ", ".join(f"{_said(name)} {number(value, 3)}" for name, value in last.items())
    return Chart(
        key="origin-" + metric.replace(".", "-").replace("_", "-"),
        title=WORDS[metric],
        caption=MEANING[metric],
        alt=f"Line chart of {WORDS[metric]} by origin, one line per model. At the last origin: {told}.",
        grid=Grid(("Origin", *(_said(n) for n in names)), tuple(
            (label, *(number(lines[n][i], 3) for n in names)) for i, label in enumerate(labels)
        )),
        traces=[_line(i, name, labels, lines[name]) for i, name in enumerate(names)],
        layout={"hovermode": "closest", "xaxis": axis("origin", type="category"), "yaxis": axis(WORDS[metric])},
        height=300,
    )  # fmt: skip


def _checks(found: Backtest, money: Money) -> Section:
    lines = tuple(
        ("held" if row[PASSED] else "BROKEN", row[SENTINEL], _said(row[MODEL]), row[FINDING])
        for row in found.sentinels.iter_rows(named=True)
    )
    held = bool(found.sentinels[PASSED].all())
    said = (
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
    return Section(
        "checks", "Can it be trusted", said, ((_reliability(found), _captured(found, money)), (card,))
    )


def _reliability(found: Backtest) -> Chart:
    entries = [entry for entry in found.entries if entry.model != ALL_ZERO]
    tables = {e.model: reliability(e.by_seed[0].churned, e.by_seed[0].p_churn) for e in entries}
    ideal: Figure = {
        "type": "scatter", "mode": "lines", "name": "perfect", "x": [0, 1], "y": [0, 1], "hoverinfo": "skip",
        "line": {"color": colour("muted"), "width": 1, "dash": "dash"},
    }  # fmt: skip
    traces = [ideal] + [
        _line(i, name, [r["predicted"] for r in table], [r["realised"] for r in table])
        for i, (name, table) in enumerate(tables.items())
    ]
    worst = {
        name: max(table, key=lambda r: abs(r["predicted"] - r["realised"])) for name, table in tables.items()
    }
    told = "; ".join(
        f"{_said(n)} {share(r['predicted'])} where {share(r['realised'])} left" for n, r in worst.items()
    )
    return Chart(
        key="backtest-reliability",
        title="Churn risk: said and came true",
        caption="Of the customers given a risk (across), the share that stayed away (up), all origins.",
        alt=f"Reliability plot. Farthest from the line: {told}.",
        grid=Grid(
            ("Model", "Customers", "Said", "Came true"),
            tuple(
                (_said(n), count(r["customers"]), share(r["predicted"]), share(r["realised"]))
                for n, table in tables.items()
                for r in table
            ),
        ),
        traces=traces,
        layout={
            "hovermode": "closest",
            "xaxis": axis("said churn risk", tickformat=".0%", range=[-0.02, 1.02], dtick=0.25),
            "yaxis": axis("share that stayed away", tickformat=".0%", range=[-0.02, 1.04], dtick=0.25),
        },
    )


def _captured(found: Backtest, money: Money) -> Chart:
    """Spend of the best-ranked share of customers at each origin, summed over origins."""
    curves = {}
    for entry in found.entries:
        rows = entry.by_seed[0]
        brought = np.zeros(len(SHARES))
        for place in np.unique(rows.origin):
            part = rows.where(rows.origin == place)
            brought += top(np.maximum(part.spend, 0.0), part.expected_spend, SHARES)
        curves[entry.model] = brought / max(brought[-1], np.finfo(float).tiny)
    told = "; ".join(f"{_said(n)} {share(float(c[4]))}" for n, c in curves.items() if n != ALL_ZERO)
    total = money.short(float(np.maximum(found.entries[0].by_seed[0].spend, 0.0).sum()))
    return Chart(
        key="backtest-captured",
        title="Spend reached by the top of the ranking",
        caption=f"Share of all realised spend ({total}) that came from the customers ranked highest.",
        alt=f"Line chart of the share of spend by share of customers, best first. The top 20%: {told}.",
        grid=Grid(
            ("Top share", *(_said(n) for n in curves)),
            tuple((share(s), *(share(float(c[i])) for c in curves.values())) for i, s in enumerate(SHARES)),
        ),
        traces=[
            _line(i, name, list(SHARES), curve.tolist(), "lines")
            for i, (name, curve) in enumerate(curves.items())
        ],
        layout={
            "hovermode": "closest",
            "xaxis": axis("share of customers, highest expected spend first", tickformat=".0%"),
            "yaxis": axis("share of realised spend", tickformat=".0%"),
        },
    )


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
            (Card(title, Grid(("Metric", *(_said(n) for n in names)), lines), (), "folds", hidden=True),)
        )
    return Section("all", "Every score", "± is one standard error, clustered by customer.", tuple(cards))
