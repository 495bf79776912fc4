"""The form of a chart: a plotly figure as plain data, with its words and its numbers beside it."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

Figure = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """A table of ready-made texts; `numeric` columns are set flush right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 1


@dataclass(frozen=True)
class Chart:
    """One chart with all that stands around it.

    `alt` says in a sentence what is to be seen; `grid` holds the numbers. Colours in the figure are
    `colour(name)`, looked up in the page's theme by the script that draws it.
    """

    key: str
    title: str
    caption: str
    alt: str
    grid: Grid
    traces: list[Figure]
    layout: Figure
    height: int = 340


def colour(name: str) -> dict[str, str]:
    """A colour of the page's theme; an object, so that no text of the user's can be taken for one."""
    return {"var": f"--{name}"}


def safe(text: str) -> str:
    """User's text for hover boxes and labels, which read a little HTML."""
    return html.escape(text, quote=False)


def axis(title: str, **more: Any) -> Figure:
    """An axis with its name and unit."""
    return {"title": {"text": title}, **more}


def bars(across: Sequence[Any], up: Sequence[Any], hover: Sequence[str], tint: Any, **more: Any) -> Figure:
    """A bar trace; `tint` is a colour name or a ready-made list of colours."""
    shade = colour(tint) if isinstance(tint, str) else tint
    words = {"hovertext": list(hover), "hoverinfo": "text"}
    return {"type": "bar", "x": across, "y": up, "marker": {"color": shade}, **words, **more}


def embedded(charts: Sequence[Chart]) -> Markup:
    """The figures as JSON that may stand inside a script element whatever the texts hold."""
    figures = {chart.key: {"traces": chart.traces, "layout": chart.layout} for chart in charts}
    text = json.dumps(
        _drawable(figures), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)


def _drawable(value: Any) -> Any:
    """Six significant digits: enough to draw with, and the last bits of a sum do not reach the page.

    A dollar sign becomes an entity: plotly takes what stands between two of them for a formula.
    """
    if isinstance(value, dict):
        return {key: _drawable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_drawable(item) for item in value]
    if isinstance(value, str):
        return value.replace("$", "&#36;")
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
