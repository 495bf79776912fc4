"""Charts of how customers come back: cohort retention, repeat rate, silence, lifecycle and migration."""

from __future__ import annotations

import polars as pl

from retinue.reporting.activity import (
    COHORT,
    COHORT_CUSTOMERS,
    DAYS_SINCE_FIRST,
    HALF_YEAR,
    MONTHS_SINCE,
    OBSERVED,
    ORDERED,
    REPEAT_SHARE,
    SILENT_CUSTOMERS,
    SILENT_FROM,
    SILENT_TO,
)
from retinue.reporting.figures import Chart, Figure, Grid, axis, colour, safe
from retinue.reporting.tables import LIFECYCLE_STAGES
from retinue.reporting.words import count, month, plural, share
from retinue.schema import CUSTOMERS, DIMENSION, FROM_GROUP, LIFECYCLE, TO_GROUP

_MOST_COHORTS = 36
_MOST_CURVES = 6
_TOLD_DAYS = (28, 91, 182, 364)
_DASHES = ("dot", "dashdot", "dash", "dot", "dash", "solid")
CohortRow = tuple[str, int, list[float | None]]

_SCALE = [[i / 4, colour(f"heat-{i}")] for i in range(5)]
_NOT_THERE_YET = "not there yet"
_DIMENSION_WORDS = {"lifecycle": "stage"}
_STAGE_WORDS = {
    "new": "first order not long ago",
    "active": "buying at their usual pace",
    "cooling": "silent for longer than usual",
    "dormant": "silent for several usual gaps",
    "lapsed": "silent for so long that they have most likely gone",
    "suppressed": "not to be contacted",
}


def retention_map(retention: pl.DataFrame) -> Chart | None:
    """Share of each acquisition month that ordered again later; None before a full month has passed."""
    cohorts = retention[COHORT].unique().sort()[-_MOST_COHORTS:]
    later = retention.filter(
        pl.col(COHORT).is_in(cohorts.implode()), pl.col(MONTHS_SINCE).is_between(1, _MOST_COHORTS)
    )
    if later.is_empty():
        return None
    last = int(later[MONTHS_SINCE].max())  # type: ignore[arg-type]
    rows = _cohort_rows(later, last)
    months = list(range(1, last + 1))
    first = rows[0]
    cut = " The latest 36 months only." if retention[COHORT].n_unique() > _MOST_COHORTS else ""
    return Chart(
        key="retention",
        title="Who came back, month by month",
        caption="Each row is the customers of one first-order month; each cell the share of them who ordered in that "
        "later month. Customers of the very first months may have been customers before the data begin."
        + cut,
        alt=f"Heat map of retention by first-order month. Of {plural(first[1], 'customer')} of {first[0]}, "
        f"{share(first[2][0])} ordered in the month after and {share(_last_known(first[2]))} in the last full month.",
        grid=Grid(
            ("First order in", "Customers", *(f"+{m}" for m in months)),
            tuple(
                (name, count(size), *("" if z is None else share(z) for z in cells))
                for name, size, cells in rows
            ),
        ),
        traces=[_cohort_trace(rows, months)],
        layout={
            "xaxis": axis("months since the first order", dtick=1 if last <= 18 else 3, showgrid=False),
            "yaxis": axis("month of the first order", type="category", autorange="reversed", showgrid=False),
        },
        height=max(300, 110 + 24 * len(rows)),
    )


def _cohort_rows(later: pl.DataFrame, last: int) -> list[CohortRow]:
    """Month of the first order, customers, share ordering 1 to `last` months later (None: not seen yet)."""
    rows: list[CohortRow] = []
    for cohort in later[COHORT].unique().sort():
        cells = later.filter(pl.col(COHORT) == cohort)
        size = int(cells[COHORT_CUSTOMERS][0])
        seen = {m: k / size for m, k in cells.select(MONTHS_SINCE, ORDERED).iter_rows()}
        rows.append((month(cohort), size, [seen.get(m) for m in range(1, last + 1)]))
    return rows


def _cohort_trace(rows: list[CohortRow], months: list[int]) -> Figure:
    return {
        "type": "heatmap",
        "x": months,
        "y": [name for name, _, _ in rows],
        "z": [cells for _, _, cells in rows],
        "colorscale": _SCALE,
        "zmin": 0,
        "zmax": max(z for _, _, cells in rows for z in cells if z is not None) or 1,
        "xgap": 1,
        "ygap": 1,
        "hovertext": [
            [_cell_words(name, size, m, z) for m, z in zip(months, cells, strict=True)]
            for name, size, cells in rows
        ],
        "hoverinfo": "text",
        "hoverongaps": False,
        "colorbar": {"tickformat": ".0%", "thickness": 10, "outlinewidth": 0, "len": 0.9},
        **({"texttemplate": "%{z:.0%}", "textwhenwide": True} if len(months) <= 18 else {}),
    }


def _cell_words(name: str, size: int, months: int, z: float | None) -> str:
    return (
        ""
        if z is None
        else f"first order {name} ({count(size)})<br>{share(z)} ordered {plural(months, 'month')} later"
    )


def _last_known(cells: list[float | None]) -> float | None:
    return next((z for z in reversed(cells) if z is not None), None)


def repeat_curves(repeat: pl.DataFrame) -> Chart | None:
    """Share with a second order by days since the first, one line per half-year of the first order."""
    halves = [
        h for h in repeat[HALF_YEAR].unique().sort() if repeat.filter(pl.col(HALF_YEAR) == h).height > 1
    ]
    halves = halves[-_MOST_CURVES:]
    if not halves:
        return None
    curves = [repeat.filter(pl.col(HALF_YEAR) == half) for half in halves]
    traces = [_repeat_line(curve, 6 - len(halves) + i) for i, curve in enumerate(curves)]
    return Chart(
        key="repeat-rate",
        title="How soon a second order follows",
        caption="Share of customers with a second order, by days since the first (Kaplan–Meier: "
        "customers not observed for "
        "that long leave the count). A line stops where fewer than half of its customers have been observed.",
        alt=f"Line chart of the share with a second order by days since the first. Customers of {halves[-1]} reach "
        f"{share(traces[-1]['y'][-1])} by day {traces[-1]['x'][-1]}.",
        grid=Grid(
            ("First order in", "Customers", *(f"by day {d}" for d in _TOLD_DAYS), "line ends at day"),
            tuple(_repeat_row(curve) for curve in curves),
        ),
        traces=traces,
        layout={
            "hovermode": "closest",
            "xaxis": axis("days since the first order", rangemode="tozero"),
            "yaxis": axis("share with a second order", tickformat=".0%", rangemode="tozero"),
        },
    )


def _repeat_line(curve: pl.DataFrame, tint: int) -> Figure:
    half, t, y = curve[HALF_YEAR][0], curve[DAYS_SINCE_FIRST].to_list(), curve[REPEAT_SHARE].to_list()
    return {
        "type": "scatter",
        "mode": "lines",
        "name": half,
        "x": t,
        "y": y,
        "line": {"color": colour(f"line-{tint}"), "width": 2, "dash": _DASHES[tint]},
        "hovertext": [f"first order {half}: {share(v)} back by day {d}" for d, v in zip(t, y, strict=True)],
        "hoverinfo": "text",
    }


def _repeat_row(curve: pl.DataFrame) -> tuple[str, ...]:
    at = dict(curve.select(DAYS_SINCE_FIRST, REPEAT_SHARE).iter_rows())
    told = (share(at[d]) if d in at else "" for d in _TOLD_DAYS)
    return (curve[HALF_YEAR][0], count(curve[OBSERVED][0]), *told, f"{curve[DAYS_SINCE_FIRST][-1]}")


def recency_histogram(recency: pl.DataFrame) -> Chart | None:
    """Customers by days since their last order."""
    if recency.is_empty():
        return None
    starts, stops, counts = (recency[c].to_list() for c in (SILENT_FROM, SILENT_TO, SILENT_CUSTOMERS))
    everyone = sum(counts)
    names = [f"{a}–{b - 1}" if b - a > 1 else f"{a}" for a, b in zip(starts, stops, strict=True)]
    half, gone = 0, 0
    for half, n in zip(stops, counts, strict=True):  # noqa: B007
        gone += n
        if 2 * gone >= everyone:
            break
    trace: Figure = {
        "type": "bar",
        "x": [(a + b) / 2 for a, b in zip(starts, stops, strict=True)],
        "y": counts,
        "width": [0.94 * (b - a) for a, b in zip(starts, stops, strict=True)],
        "marker": {"color": colour("accent")},
        "hovertext": [
            f"{x} days silent<br>{plural(k, 'customer')}" for x, k in zip(names, counts, strict=True)
        ],
        "hoverinfo": "text",
    }
    return Chart(
        key="recency",
        title="How long customers have been silent",
        caption="Customers by days since their last order, at the cutoff.",
        alt=f"Histogram of days since the last order: half of {plural(everyone, 'customer')} ordered within the last "
        f"{count(half)} days.",
        grid=Grid(
            ("Days since last order", "Customers", "Share"),
            tuple((x, count(k), share(k / everyone)) for x, k in zip(names, counts, strict=True)),
        ),
        traces=[trace],
        layout={
            "xaxis": axis("days since the last order", rangemode="tozero", showgrid=False),
            "yaxis": axis("customers", rangemode="tozero", tickformat=",~f"),
        },
    )


def lifecycle_bars(segments: pl.DataFrame) -> Chart | None:
    """Customers by lifecycle stage."""
    if segments.is_empty():
        return None
    sizes = dict(segments.group_by(LIFECYCLE).len().iter_rows())
    stages = [s for s in LIFECYCLE_STAGES if s in sizes] + sorted(
        s for s in sizes if s not in LIFECYCLE_STAGES
    )
    counts = [sizes[s] for s in stages]
    trace: Figure = {
        "type": "bar",
        "orientation": "h",
        "y": [safe(s) for s in stages],
        "x": counts,
        "text": [share(k / segments.height) for k in counts],
        "textposition": "auto",
        "marker": {"color": colour("accent")},
        "hovertext": [
            f"{safe(s)}: {_STAGE_WORDS.get(s, '')}<br>{plural(k, 'customer')}"
            for s, k in zip(stages, counts, strict=True)
        ],
        "hoverinfo": "text",
    }
    return Chart(
        key="lifecycle",
        title="Stage of life",
        caption="Customers by lifecycle stage, judged against each customer's own usual gap between orders.",
        alt="Bar chart of lifecycle stages: "
        + ", ".join(f"{s} {share(k / segments.height)}" for s, k in zip(stages, counts, strict=True))
        + ".",
        grid=Grid(
            ("Stage", "Meaning", "Customers", "Share"),
            tuple(
                (s, _STAGE_WORDS.get(s, ""), count(k), share(k / segments.height))
                for s, k in zip(stages, counts, strict=True)
            ),
            text_columns=2,
        ),
        traces=[trace],
        layout={
            "xaxis": axis("customers", rangemode="tozero", tickformat=",~f"),
            "yaxis": axis("lifecycle stage", type="category", autorange="reversed", showgrid=False),
        },
        height=300,
    )


def migration_maps(moves: pl.DataFrame | None) -> list[Chart]:
    """One map for the moves between segments and one for those between lifecycle stages, if any."""
    if moves is None:
        return []
    known = moves.filter(pl.col(FROM_GROUP) != _NOT_THERE_YET)
    parts = [
        (d, known.filter(pl.col(DIMENSION) == d)) for d in known[DIMENSION].unique().sort(descending=True)
    ]
    return [_migration_map(moved, dimension) for dimension, moved in parts]


def _migration_map(moved: pl.DataFrame, dimension: str) -> Chart:
    """Share of each earlier group (row) that is now in each group (column)."""
    what = _DIMENSION_WORDS.get(dimension, dimension)
    flows = {
        (a, b): n
        for a, b, n in moved.select(FROM_GROUP, TO_GROUP, CUSTOMERS).sort(FROM_GROUP, TO_GROUP).iter_rows()
    }
    rows, columns = (sorted({pair[i] for pair in flows}, key=_stage_order) for i in (0, 1))
    sums = {a: sum(flows.get((a, b), 0) for b in columns) for a in rows}
    stayed = sum(n for (a, b), n in flows.items() if a == b)
    trace: Figure = {
        "type": "heatmap",
        "x": [safe(b) for b in columns],
        "y": [safe(a) for a in rows],
        "z": [[flows.get((a, b), 0) / sums[a] for b in columns] for a in rows],
        "colorscale": _SCALE,
        "zmin": 0,
        "zmax": 1,
        "xgap": 2,
        "ygap": 2,
        "texttemplate": "%{z:.0%}",
        "showscale": False,
        "hovertext": [
            [f"{safe(a)} → {safe(b)}<br>{plural(flows.get((a, b), 0), 'customer')}" for b in columns]
            for a in rows
        ],
        "hoverinfo": "text",
    }
    return Chart(
        key=f"migration-{dimension}",
        title=f"Who moved between {what}s",
        caption=f"Rows: the {what} at the earlier cutoff. Columns: the {what} now. Each row adds up to 100%.",
        alt=f"Heat map of moves between {what}s: {count(stayed)} of {count(sum(sums.values()))} "
        "customers stayed where they were.",
        grid=Grid(
            ("Then", "Now", "Customers", "Share of then"),
            tuple((a, b, count(n), share(n / sums[a])) for (a, b), n in flows.items()),
            text_columns=2,
        ),
        traces=[trace],
        layout={
            "xaxis": axis(f"{what} now", type="category", showgrid=False, wraplabels=True),
            "yaxis": axis(
                f"{what} then", type="category", autorange="reversed", showgrid=False, wraplabels=True
            ),
        },
        height=max(280, 150 + 48 * len(rows)),
    )


def _stage_order(group: str) -> tuple[int, str]:
    return (LIFECYCLE_STAGES.index(group) if group in LIFECYCLE_STAGES else len(LIFECYCLE_STAGES), group)
