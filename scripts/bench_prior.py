"""What bases the prior covers, and where real ones lie in it.

python scripts/bench_prior.py [FOLDER:CUTOFF …] [--bases n] [--page FILE.html]; FOLDER is what retinue prepare has left.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from plotly import graph_objects
from plotly.subplots import make_subplots
from rich.console import Console
from rich.table import Table

from retinue.events.timeline import instant
from retinue.pretraining.stream import SimulatedBase, read_simulated, simulated_base
from retinue.sequences.behaviour import NAMES
from retinue.sequences.tokens import TokenStore

SEED = 11
TOLD = {
    "days of history": True,
    "customers seen": True,
    "bought once, %": False,
    "mean repeat orders": True,
    "median gap, days": True,
    "spread of log gaps": False,
    "Gini of spend": False,
    "refunds, % of value": False,
    "season: sd of log weeks": False,
    "first orders in the first eighth, × even": True,
}
PERCENTILES = (1, 10, 50, 90, 99)


def told(base: SimulatedBase) -> list[float]:
    """The quantities of `TOLD`, NaN where a base has none."""
    seen, sums = base.behaviour, base.behaviour.sums
    deviation = seen.numbers[:, NAMES.index("gap_deviation")]
    some = np.isfinite(deviation)
    spend = np.sort(seen.gross)
    count = len(spend)
    even = np.arange(1, count + 1) / count
    gini = 2 * float(np.mean(even - np.cumsum(spend) / spend.sum())) if spend.sum() else np.nan
    return [
        base.units.span,
        count,
        100 * float(np.mean(seen.frequency == 0)),
        float(seen.frequency.mean()),
        base.units.gap_days,
        float(np.median(deviation[some])) if some.any() else np.nan,
        gini,
        100 * float(sums.refunds[0] / sums.refunds[1]) if sums.refunds[1] > 0 else np.nan,
        float(np.std(np.log(base.units.season.week))),
        float(sums.early) / count * 8,
    ]


def real(asked: str) -> list[float]:
    """Those of a prepared base at a cutoff."""
    folder, cutoff = asked.rsplit(":", 1)
    tokens = TokenStore.open(Path(folder) / "tokens").read()
    found = read_simulated(tokens, instant(cutoff, tokens.zone), tokens.observation_end)
    if found is None:
        raise SystemExit(f"{asked}: fewer than 60 customers had ordered by then.")
    return told(found)


def page(prior: NDArray[np.float64], reals: dict[str, list[float]]) -> graph_objects.Figure:
    """A histogram per quantity with a line where each real base lies."""
    figure = make_subplots(rows=5, cols=2, horizontal_spacing=0.12, vertical_spacing=0.075)
    colours = ("#c2410c", "#1d4ed8", "#15803d", "#7e22ce")
    for i, (name, is_log) in enumerate(TOLD.items()):
        row, col = i // 2 + 1, i % 2 + 1
        values = prior[:, i][np.isfinite(prior[:, i])]
        shown = np.log10(np.maximum(values, 1e-2)) if is_log else values
        figure.add_histogram(x=shown, nbinsx=30, marker_color="#cbd5e1", showlegend=False, row=row, col=col)
        for (base, each), colour in zip(reals.items(), colours, strict=False):
            where = np.log10(max(each[i], 1e-2)) if is_log else each[i]
            top = 1.05 * np.histogram(shown, 30)[0].max()
            figure.add_scatter(
                x=[where, where], y=[0, top], mode="lines", line={"color": colour, "width": 3}, name=base,
                legendgroup=base, showlegend=i == 0, row=row, col=col,
            )  # fmt: skip
        ticks = {}
        if is_log:
            powers = range(int(np.floor(shown.min())), int(np.ceil(shown.max())) + 1)
            ticks = {"tickvals": list(powers), "ticktext": [f"{10.0**power:g}" for power in powers]}
        figure.update_xaxes(title=name, row=row, col=col, **ticks)
        figure.update_yaxes(title="simulated bases", row=row, col=col)
    figure.update_layout(
        width=1_000,
        height=1_350,
        template="plotly_white",
        legend={"orientation": "h", "y": 1.04},
        margin={"t": 60},
    )
    return figure


def table(prior: NDArray[np.float64], reals: dict[str, list[float]]) -> Table:
    """A row per quantity."""
    shown = Table("", *(f"{each} %" for each in PERCENTILES), *reals)
    for i, name in enumerate(TOLD):
        values = prior[:, i][np.isfinite(prior[:, i])]
        cells = [_short(each) for each in np.percentile(values, PERCENTILES)]
        for each in reals.values():
            share = 100 * float(np.mean(values <= each[i]))
            cells.append("–" if np.isnan(each[i]) else f"{_short(each[i])} ({share:.0f} %)")
        shown.add_row(name, *cells)
    return shown


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bases", nargs="*", metavar="FOLDER:CUTOFF")
    parser.add_argument("--bases", dest="count", type=int, default=400)
    parser.add_argument("--page", type=Path)
    asked = parser.parse_args(words)
    prior = np.array([told(simulated_base((SEED, i))) for i in range(asked.count)])
    reals = {Path(each.rsplit(":", 1)[0]).name: real(each) for each in asked.bases}
    Console(width=150).print(table(prior, reals))
    if asked.page is not None:
        page(prior, reals).write_html(asked.page, config={"displayModeBar": False})


if __name__ == "__main__":
    main()
