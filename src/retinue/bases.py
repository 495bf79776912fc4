"""Several bases in one export (`data.columns.base`): a run of each, in a folder of its own, and a page that compares them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from retinue.config import expanded
from retinue.events.reading import BROKEN, unreadable
from retinue.events.sources import inputs_of
from retinue.events.store import Store, write_text
from retinue.forecasting.scoring import totals
from retinue.options import Options
from retinue.reporting.figures import Grid
from retinue.reporting.pages import Card, Section, build_page
from retinue.reporting.words import Money, count, day, days, share
from retinue.schema import (
    BASE,
    CLV,
    CUSTOMERS,
    CUTOFF,
    EXPECTED_CHURNERS,
    EXPECTED_ORDERS,
    EXPECTED_SPEND,
    HORIZON_DAYS,
    InputError,
    listed,
    shown,
)

MOST_BASES = 100
PAGE = "bases.html"
HEADS = (
    "Base",
    "Cutoff",
    "Horizon",
    "Customers",
    "Not ordering",
    "Orders",
    "Expected spend",
    "Discounted value (clv)",
    "Report",
)


def names_of(options: Options) -> list[str]:
    """The bases that the column names, sorted; rows without one are of data.base.

    Raises:
        InputError: a column with more values than any firm has bases.
    """
    column = options.data.columns.base
    assert column is not None
    found: set[str] = set()
    with tempfile.TemporaryDirectory() as work:
        for source in inputs_of(options.data, Path(work)):
            if BASE not in source.expressions:
                continue
            text = source.expressions[BASE].cast(pl.String, strict=False).str.strip_chars()
            try:
                seen = (
                    source.table.frame.select(text.unique().alias(BASE))
                    .head(MOST_BASES + 2)
                    .collect(engine="streaming")
                )
            except BROKEN as error:
                raise unreadable(source.table.label, error) from error
            found |= {value or options.data.base for value in seen[BASE].to_list()}
    if len(found) > MOST_BASES:
        raise InputError(
            f"data.columns.base={shown(column)}: has more than {MOST_BASES} values ({listed(sorted(found), 3)}); it is no "
            "retailer, brand or market. Leave it out, or name the right column."
        )
    return sorted(found)


def words_of(words: Sequence[str], options: Options, name: str) -> list[str]:
    """The words of the run of one base: its rows alone, in a folder of its own."""
    column = options.data.columns.base
    quoted = '"' + str(column).replace('"', '""') + '"'
    text = "'" + name.replace("'", "''") + "'"
    mine = f"TRIM(CAST({quoted} AS VARCHAR)) = {text}"
    if name == options.data.base:
        mine = f"({mine} OR {quoted} IS NULL OR TRIM(CAST({quoted} AS VARCHAR)) = '')"
    rows = f"({options.data.keep_where}) AND {mine}" if options.data.keep_where else mine
    own = [
        f"data.keep_where={rows}",
        "data.columns.base=null",
        f"data.base={name}",
        f"data.name={options.data.name} {name}",
        f"output={folder_of(options, name)}",
    ]
    if options.ledger is not None:  # equal ids of two bases are two customers
        own.append(f"ledger={Path(options.ledger) / folder_of(options, name).name}")
    return expanded([*words, *own])


def folder_of(options: Options, name: str) -> Path:
    """Where the run of a base stands."""
    safe = "".join(sign if sign.isalnum() or sign in "-_." else f"%{ord(sign):02X}" for sign in name)
    return options.folder / f"base={safe}"


def compare(options: Options, names: Sequence[str]) -> Path | None:
    """Writes the page that holds the bases side by side; None where no run of theirs has forecasts."""
    rows, lines = [], []
    for name in names:
        folder = folder_of(options, name)
        if not (folder / "forecasts.parquet").is_file():
            continue
        manifest = Store.open(folder / "events").manifest
        money = Money(options.data.currency or manifest.currency)
        made = totals([pl.read_parquet(folder / "forecasts.parquet")])
        for row in made.sort(CUTOFF, HORIZON_DAYS).iter_rows(named=True):
            rows.append(
                (
                    name,
                    day(row[CUTOFF], manifest.local_zone),
                    days(row[HORIZON_DAYS]),
                    count(row[CUSTOMERS]),
                    share(row[EXPECTED_CHURNERS] / max(row[CUSTOMERS], 1)),
                    count(row[EXPECTED_ORDERS]),
                    money.short(row[EXPECTED_SPEND]),
                    money.short(row[CLV]),
                    f"{folder.name}/report.html",
                )
            )
        lines.append(name)
    if not rows:
        return None
    lead = f"{len(lines)} bases, each forecast by itself: its customers, forecaster, segments and report are its own."
    section = Section(
        "bases",
        "Side by side",
        lead,
        ((Card("Totals by base, cutoff and horizon", Grid(HEADS, tuple(rows))),),),
    )
    path = options.folder / PAGE
    write_text(build_page(f"{options.data.name}: bases", f"{len(lines)} bases", [section]), path)
    return path
