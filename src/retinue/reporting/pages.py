"""Pages beside the report: sections of charts and tables in one self-contained file, in the report's style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from retinue.reporting.figures import Chart, Grid, embedded


@dataclass(frozen=True)
class Card:
    """A table with its words; `kind` "folds" makes each row a block on a phone, `hidden` waits behind a click."""

    title: str
    grid: Grid | None = None
    text: tuple[str, ...] = ()
    kind: str = ""
    hidden: bool = False


@dataclass(frozen=True)
class Block:
    """What the report has too: `part` names it in parts.html.j2, `given` is what is drawn there."""

    part: str
    given: tuple[Any, ...]


@dataclass(frozen=True)
class Section:
    """One part of a page: rows of one or two charts, cards or blocks."""

    key: str
    title: str
    lead: str
    rows: tuple[tuple[Chart | Card | Block, ...], ...]

    @property
    def charts(self) -> list[Chart]:
        """Its charts, in order."""
        return [item for row in self.rows for item in row if isinstance(item, Chart)]


def build_page(title: str, subtitle: str, sections: Sequence[Section], names_customers: bool = False) -> str:
    """The page as HTML text: no network, texts escaped, nothing that depends on the clock or on chance."""
    charts = [chart for section in sections for chart in section.charts]
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            subtitle=subtitle,
            sections=sections,
            names_customers=names_customers,
            figures=embedded(charts),
            plotly_js=Markup(get_plotlyjs()),
            style=part("report.css"),
            script=part("report.js"),
        )
    )


@cache
def environment() -> Environment:
    """Where the templates stand; texts are escaped, and an unknown name is an error."""
    return Environment(
        loader=PackageLoader("retinue", "reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def part(name: str) -> Markup:
    """A file of this package, put into a page as it stands."""
    return Markup(files("retinue.reporting").joinpath(name).read_text(encoding="utf-8"))
