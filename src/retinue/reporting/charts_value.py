"""Charts of the forecasts: how value and risk are spread, and where each customer stands between them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import polars as pl

from retinue.options import DecisionOptions
from retinue.reporting.figures import Chart, Figure, Grid, axis, bars, colour, safe
from retinue.reporting.tables import QUADRANTS, high_value_from, total
from retinue.reporting.words import Money, count, plural, share
from retinue.schema import (
    CLV,
    CUSTOMER_ID,
    EXPECTED_ORDERS,
    P_CHURN,
    QUADRANT,
    VALUE_AT_STAKE,
    VALUE_IF_RETAINED,
)

QUADRANT_NAMES = {"save": "Save", "advocate": "Advocate", "nurture": "Nurture", "let_go": "Let go"}
_SYMBOLS = {"save": "diamond", "advocate": "circle", "nurture": "square", "let_go": "x-thin-open"}
_MOST_POINTS = 2_000
_ALWAYS_SHOWN = 50
RISK_BINS = 20
BAND_QUANTILES = (0.01, 0.99)
LEAST_VALUE = 1e-9
LEAST_FOR_TENTHS = 10


def value_bands(scored: pl.DataFrame, money: Money, horizon_days: int) -> Chart:
    """Customers by discounted value, in bands of 1-2-5 steps."""
    positive = scored.filter(pl.col(CLV) > 0)[CLV]
    edges = band_edges(*(positive.quantile(q, "lower") for q in BAND_QUANTILES))
    bands = []
    for low, high in itertools.pairwise([-math.inf, *edges, math.inf]):
        band = scored.filter(pl.col(CLV) >= low, pl.col(CLV) < high)
        bands.append((band.height, total(band[CLV])))
    return bands_chart(edges, bands, money, horizon_days)


def bands_chart(
    edges: Sequence[float], bands: Sequence[tuple[int, float]], money: Money, horizon_days: int
) -> Chart:
    """Customers and their value together below the first of the edges, between them and above the last."""
    rows = [(label, *band) for label, band in zip(_band_labels(edges, money), bands, strict=True)]
    if rows[0][1] == 0:
        rows = rows[1:]
    everyone = sum(n for _, n, _ in rows)
    biggest = max(rows, key=lambda row: row[1])
    hover = [
        f"{safe(label)}<br>{plural(n, 'customer')}<br>{money.full(value)} together"
        for label, n, value in rows
    ]
    trace: Figure = {
        "type": "bar",
        "orientation": "h",
        "y": [row[0] for row in rows],
        "x": [row[1] for row in rows],
        "marker": {"color": colour("accent")},
        "hovertext": hover,
        "hoverinfo": "text",
    }
    return Chart(
        key="value-bands",
        title="What customers are expected to be worth",
        caption=f"Customers by discounted value (clv) of the next {horizon_days} days.",
        alt=f"Bar chart of customers by discounted value. The fullest band is {biggest[0]} with {count(biggest[1])} "
        f"of {plural(everyone, 'customer')}.",
        grid=Grid(
            ("Discounted value (clv)", "Customers", "Share", "Value together"),
            tuple((lab, count(n), share(n / everyone), money.full(v)) for lab, n, v in rows),
        ),
        traces=[trace],
        layout={
            "xaxis": axis("customers", rangemode="tozero", tickformat=",~f"),
            "yaxis": axis(
                f"value (clv) per customer ({money.unit})",
                type="category",
                autorange="reversed",
                showgrid=False,
            ),
        },
    )


def band_edges(low: float | None, high: float | None) -> list[float]:
    """Edges 1, 2, 5, 10, … between the BAND_QUANTILES of the positive values, if any; the least edge parts off zero."""
    if low is None or high is None:
        return [LEAST_VALUE]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = [float(f"{m}e{d}") for d in decades for m in (1, 2, 5)]
    inner = [s for s in steps if low < s <= high][-12:]
    return [LEAST_VALUE, *inner]


def _band_labels(edges: Sequence[float], money: Money) -> list[str]:
    inner = edges[1:]
    none = "0 or less"
    if not inner:
        return [none, "above 0"]
    between = [f"{money.edge(a)}–{money.edge(b)}" for a, b in itertools.pairwise(inner)]
    return [none, f"under {money.edge(inner[0])}", *between, f"{money.edge(inner[-1])} and more"]


def value_deciles(scored: pl.DataFrame, money: Money, horizon_days: int) -> Chart | None:
    """Share of all discounted value that each tenth of the customers holds; None below ten customers or value."""
    whole = total(scored[CLV])
    if scored.height < LEAST_FOR_TENTHS or whole <= 0:
        return None
    ranked = scored.sort(CLV, CUSTOMER_ID, descending=[True, False])[CLV]
    ends = tenths(scored.height)
    return deciles_chart(
        ends, [total(ranked[one:other]) for one, other in itertools.pairwise(ends)], money, horizon_days
    )


def tenths(customers: int) -> list[int]:
    """Where the tenths of so many customers begin and end."""
    return [customers * i // 10 for i in range(11)]


def deciles_chart(ends: Sequence[int], sums: Sequence[float], money: Money, horizon_days: int) -> Chart:
    """Share of all value by tenth of customers, best first; `ends` from `tenths`, `sums` their value together."""
    whole = total(sums)
    sizes = [other - one for one, other in itertools.pairwise(ends)]
    names = ["best 10%", *[f"{10 * i}–{10 * i + 10}%" for i in range(1, 10)]]
    trace: Figure = {
        "type": "bar",
        "x": list(range(1, 11)),
        "y": [s / whole for s in sums],
        "marker": {"color": [colour("accent" if i < 2 else "accent-soft") for i in range(10)]},
        "hovertext": [
            f"{x}<br>{share(s / whole)} of value<br>{money.full(s)}" for x, s in zip(names, sums, strict=True)
        ],
        "hoverinfo": "text",
    }
    return Chart(
        key="value-deciles",
        title="Where the value sits",
        caption=f"Share of all discounted value (clv) over {horizon_days} days, by tenth of customers, best first.",
        alt=f"Bar chart by tenth of customers: the best tenth holds {share(sums[0] / whole)} of all discounted value, "
        f"the best fifth {share((sums[0] + sums[1]) / whole)}.",
        grid=Grid(
            ("Tenth of customers", "Customers", "Value together", "Share of value"),
            tuple(
                (x, count(k), money.full(s), share(s / whole))
                for x, k, s in zip(names, sizes, sums, strict=True)
            ),
        ),
        traces=[trace],
        layout={
            "xaxis": axis("tenth of customers, by discounted value (clv)", dtick=1, showgrid=False),
            "yaxis": axis("share of discounted value", tickformat=".0%", rangemode="tozero"),
        },
    )


def risk_histogram(scored: pl.DataFrame, rules: DecisionOptions, horizon_days: int) -> Chart:
    """Customers by churn risk, those above the threshold set apart."""
    risk = pl.col(P_CHURN)
    binned = scored.with_columns(risk_bin().alias("bin"))
    low, high = (
        [binned.filter(side, pl.col("bin") == i).height for i in range(RISK_BINS)]
        for side in (risk < rules.risk_threshold, risk >= rules.risk_threshold)
    )
    return risk_chart(low, high, rules, horizon_days)


def risk_bin() -> pl.Expr:
    """Bin of a customer's churn risk, of RISK_BINS equally wide ones."""
    return (pl.col(P_CHURN) * RISK_BINS).floor().clip(0, RISK_BINS - 1).cast(pl.Int64)


def risk_chart(
    low_counts: Sequence[int], high_counts: Sequence[int], rules: DecisionOptions, horizon_days: int
) -> Chart:
    """Customers below the risk threshold, and from it on, in each bin of risk."""
    centres = [(i + 0.5) / RISK_BINS for i in range(RISK_BINS)]
    names = [f"{100 * i // RISK_BINS}–{100 * (i + 1) // RISK_BINS}%" for i in range(RISK_BINS)]
    everyone = sum(low_counts) + sum(high_counts)
    parts = (
        (f"below {share(rules.risk_threshold)}", low_counts, "advocate"),
        (f"{share(rules.risk_threshold)} or more", high_counts, "save"),
    )
    traces = [
        bars(
            centres,
            counts,
            [f"risk {x}<br>{plural(k, 'customer')}" for x, k in zip(names, counts, strict=True)],
            tint,
            name=name,
            width=0.94 / RISK_BINS,
        )
        for name, counts, tint in parts
    ]
    return Chart(
        key="risk-histogram",
        title="How likely customers are to stay away",
        caption=f"Customers by the probability of no order in the next {horizon_days} days.",
        alt=f"Histogram of churn risk: {count(sum(high_counts))} of {plural(everyone, 'customer')} have a risk of "
        f"{share(rules.risk_threshold)} or more.",
        grid=Grid(
            ("Risk", "Customers", "Share"),
            tuple(
                (x, count(a + b), share((a + b) / everyone))
                for x, a, b in zip(names, low_counts, high_counts, strict=True)
            ),
        ),
        traces=traces,
        layout={
            "barmode": "stack",
            "xaxis": axis(
                "churn risk (probability of no order)",
                tickformat=".0%",
                range=[0, 1],
                dtick=0.25,
                showgrid=False,
            ),
            "yaxis": axis("customers", rangemode="tozero", tickformat=",~f"),
        },
    )


def quadrant_map(scored: pl.DataFrame, rules: DecisionOptions, money: Money, horizon_days: int) -> Chart:
    """Risk across, value if retained upwards; a fixed sample of customers, the largest stakes among them."""
    shown = _sample(scored)
    positive = scored.filter(pl.col(VALUE_IF_RETAINED) > 0)[VALUE_IF_RETAINED]
    on_log = not positive.is_empty()
    floor = float(positive.quantile(0.005, "lower") or 0.0) if on_log else 0.0
    traces = [_cloud(shown, quadrant, floor, on_log, money) for quadrant in QUADRANTS]
    limit = high_value_from(scored, rules)
    lines: list[Figure] = [_line("x", rules.risk_threshold)]
    if limit is not None and (limit > 0 or not on_log):
        lines.append(_line("y", limit))
    sizes = {q: scored.filter(pl.col(QUADRANT) == q) for q in QUADRANTS}
    note = (
        f" Values below {money.full(floor)} are drawn there."
        if on_log and (scored[VALUE_IF_RETAINED] < floor).any()
        else ""
    )
    of_all = (
        ""
        if shown.height == scored.height
        else f" A sample of {count(shown.height)}; the counts above are of all."
    )
    return Chart(
        key="quadrant-map",
        title="Value against risk",
        caption="Each mark is a customer; dashed lines part the groups. Point at a mark for its "
        f"figures.{of_all}{note}",
        alt="Scatter of customers by churn risk and value if retained: "
        + ", ".join(f"{plural(rows.height, 'customer')} in {QUADRANT_NAMES[q]}" for q, rows in sizes.items())
        + ".",
        grid=_group_grid(sizes, scored.height, money),
        traces=[trace for trace in traces if trace["x"]],
        layout={
            "hovermode": "closest",
            "xaxis": axis(
                f"churn risk in {horizon_days} days (probability)",
                tickformat=".0%",
                range=[-0.02, 1.02],
                dtick=0.25,
            ),
            "yaxis": axis(
                f"value if retained ({money.unit})",
                tickformat=",~f",
                **({"type": "log", "dtick": 1} if on_log else {}),
            ),
            "shapes": lines,
            "zoomable": True,
        },
        height=460,
    )


def _group_grid(sizes: dict[str, pl.DataFrame], everyone: int, money: Money) -> Grid:
    return Grid(
        ("Group", "Customers", "Share", "Discounted value", "Value at stake"),
        tuple(
            (
                QUADRANT_NAMES[q],
                count(rows.height),
                share(rows.height / everyone),
                money.full(total(rows[CLV])),
                money.full(total(rows[VALUE_AT_STAKE])),
            )
            for q, rows in sizes.items()
        ),
    )


def _line(along: str, at: float) -> Figure:
    ends = {"x0": at, "x1": at, "y0": 0, "y1": 1, "yref": "paper"}
    if along == "y":
        ends = {"y0": at, "y1": at, "x0": 0, "x1": 1, "xref": "paper"}
    return {"type": "line", "line": {"color": colour("muted"), "width": 1, "dash": "dash"}, **ends}


def _sample(scored: pl.DataFrame) -> pl.DataFrame:
    """The largest stakes, and every k-th of the rest in order of risk and value: no chance in it."""
    if scored.height <= _MOST_POINTS:
        return scored
    by_stake = scored.sort(VALUE_AT_STAKE, CUSTOMER_ID, descending=[True, False], nulls_last=True)
    rest = by_stake[_ALWAYS_SHOWN:].sort(P_CHURN, VALUE_IF_RETAINED, CUSTOMER_ID)
    wanted = _MOST_POINTS - _ALWAYS_SHOWN
    rows = [rest.height * i // wanted for i in range(wanted)]
    return pl.concat([by_stake[:_ALWAYS_SHOWN], rest[rows]])


def _cloud(shown: pl.DataFrame, quadrant: str, floor: float, on_log: bool, money: Money) -> Figure:
    mine = shown.filter(pl.col(QUADRANT) == quadrant)
    height = pl.col(VALUE_IF_RETAINED)
    hover = [
        f"<b>{safe(who)}</b><br>risk {share(risk)}<br>value if retained {money.full(value)}"
        f"<br>at stake {money.full(stake)}<br>expected orders {orders:.2f}"
        for who, risk, value, stake, orders in mine.select(
            CUSTOMER_ID, P_CHURN, VALUE_IF_RETAINED, VALUE_AT_STAKE, EXPECTED_ORDERS
        ).iter_rows()
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": QUADRANT_NAMES[quadrant],
        "x": mine[P_CHURN].to_list(),
        "y": mine.select(height.clip(lower_bound=floor) if on_log else height).to_series().to_list(),
        "marker": {
            "color": colour(quadrant),
            "symbol": _SYMBOLS[quadrant],
            "size": 7,
            "opacity": 0.75,
            "line": {"width": 1.5 if quadrant == "let_go" else 0, "color": colour(quadrant)},
        },
        "hovertext": hover,
        "hoverinfo": "text",
    }
