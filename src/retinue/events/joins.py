"""Linked files: columns of another file beside the rows whose key they share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import polars as pl

from retinue.events.notes import FACT, WARNING, finding
from retinue.events.reading import (
    ROW_NUMBER,
    RawTable,
    check_cells,
    find_files,
    nearest,
    open_table,
    unreadable,
)
from retinue.events.rows import row_filter
from retinue.events.text_files import PROBLEM
from retinue.options import ColumnOptions, DataOptions
from retinue.schema import InputError, listed, shown

_KEY = "__join_key__"
_MET = "__met__"
_FORM = "Write data.join.customers='customers.csv on customer_id', or '… on id_in_the_orders = id_in_the_customers'."


def matched_column(name: str) -> str:
    """The column that says whether a row met its partner in a linked file."""
    return f"{_MET}{name}"


def joined_name(column: str) -> str | None:
    """The linked file that such a column is of, or None for any other column."""
    return column.removeprefix(_MET) if column.startswith(_MET) else None


@dataclass(frozen=True)
class Linked:
    """One linked file: its columns that are read, one row per key; `columns` are called by the names of the values."""

    name: str
    label: str
    left: str
    rows: pl.LazyFrame
    columns: dict[str, str]
    notes: list[dict[str, Any]] = field(default_factory=list)


def linked_files(options: DataOptions, work: Path) -> list[Linked]:
    """The files of data.join, opened.

    Raises:
        InputError: an entry is not of its form, a file or key is missing, or no option reads any of its columns.
    """
    return [_opened(name, text, options, work) for name, text in sorted(options.join.items())]


def join_parts(name: str, text: str) -> tuple[str, str, str]:
    """Path, key in the rows and key in the linked file of one entry of data.join."""
    path, found, key = text.rpartition(" on ")
    left, _, right = key.partition("=")
    parts = path.strip(), left.strip(), (right or left).strip()
    if not found or not all(parts):
        raise InputError(f"data.join.{name}={text}: is not '<file> on <column>'. {_FORM}")
    return parts


def _opened(name: str, text: str, options: DataOptions, work: Path) -> Linked:
    path, left, right = join_parts(name, text)
    files = find_files(path, f"data.join.{name}")
    if len(files) > 1:
        raise InputError(f"data.join.{name}={text}: are {len(files):,} files; give one. {_FORM}")
    table = open_table(files[0], options.separator, work, options.encoding)
    if right not in table.columns:
        raise InputError(
            f"{table.label}: there is no column '{right}' (data.join.{name}); it has {listed(table.columns)}."
            f"{nearest(right, table.columns)} {_FORM}"
        )
    asked = set(_asked(options))
    # a column may be called customers.<name>, and is where the rows have one of its name
    others = [column for column in table.columns if column != right]
    wanted = {c: as_ for c in others for as_ in (c, f"{name}.{c}") if as_ in asked}
    if not wanted:
        raise InputError(
            f"{table.label}: data.join.{name} joins it, but no option reads one of its columns ({listed(others)}). "
            f"Set data.columns.region={others[0] if others else '<name>'}, or leave data.join.{name} out."
        )
    check_cells(table, {name: name for name in (right, *wanted)})
    frame, broken = _without_broken(table)
    notes = [finding(FACT, "files", f"{table.label}: {note}.") for note in table.notes] + broken
    keyed = frame.select(_key(right), ROW_NUMBER, *wanted).filter(pl.col(_KEY).is_not_null())
    notes += _doubles(table.label, right, keyed)
    rows = keyed.group_by(_KEY).agg(pl.col(list(wanted)).sort_by(ROW_NUMBER).first())
    return Linked(name, table.label, left, rows, wanted, notes)


def _asked(options: DataOptions) -> Iterable[str]:
    yield from (given for item in fields(ColumnOptions) if (given := getattr(options.columns, item.name)))
    for columns in options.columns_of.values():
        yield from columns.values()
    chosen = row_filter(options.keep_where)
    yield from chosen.columns if chosen else ()


def _key(column: str) -> pl.Expr:
    """Keys as texts without blanks around them or the '.0' of a whole number, so that files of two formats meet."""
    text = pl.col(column).cast(pl.String, strict=False).str.strip_chars()
    return text.str.replace(r"^(\d+)\.0+$", "${1}").alias(_KEY)


def _without_broken(table: RawTable) -> tuple[pl.LazyFrame, list[dict[str, Any]]]:
    """The lines that fit the header, and a warning where some do not."""
    if PROBLEM not in table.frame.collect_schema():
        return table.frame, []
    bad = pl.col(PROBLEM).is_not_null()
    try:
        count = table.frame.select(bad.sum()).collect(engine="streaming").item()
    except pl.exceptions.PolarsError as error:
        raise unreadable(table.label, error) from error
    notes = []
    if count:
        many = "1 line does not fit" if count == 1 else f"{count:,} lines do not fit"
        cure = "Export the file again, or set data.separator."
        notes.append(
            finding(WARNING, "rows", f"{table.label}: {many} the header and are no partner of any row.", cure)
        )
    return table.frame.filter(~bad), notes


def _doubles(label: str, right: str, keyed: pl.LazyFrame) -> list[dict[str, Any]]:
    many = keyed.group_by(_KEY).len().filter(pl.col("len") > 1)
    try:
        keys, first = many.select(pl.len(), pl.col(_KEY).min()).collect(engine="streaming").row(0)
    except pl.exceptions.PolarsError as error:
        raise unreadable(label, error) from error
    if not keys:
        return []
    text = f"{label}: column '{right}' has {keys:,} key{'' if keys == 1 else 's'} more than once (one is '{shown(first)}')"
    cure = "Remove the doubles from the file, if the first row of a key is not the right one."
    return [finding(WARNING, "rows", f"{text}; the first row of each is read.", cure)]


def joined(table: RawTable, linked: Iterable[Linked], is_main: bool) -> RawTable:
    """The table with the columns of the linked files; a file of one type without the key stays as it is.

    Raises:
        InputError: the key is missing in a file that holds every type of event.
    """
    for one in linked:
        if one.left not in table.columns:
            if not is_main:
                continue
            raise InputError(
                f"{table.label}: there is no column '{one.left}' (data.join.{one.name}); it has "
                f"{listed(table.columns)}.{nearest(one.left, table.columns)} {_FORM}"
            )
        called = {c: f"{one.name}.{c}" if c in table.columns else as_ for c, as_ in one.columns.items()}
        partner = one.rows.rename(called).with_columns(pl.lit(True).alias(matched_column(one.name)))
        frame = table.frame.with_columns(_key(one.left))
        frame = frame.join(partner, on=_KEY, how="left", maintain_order="left").drop(_KEY)
        table = replace(table, frame=frame, columns=(*table.columns, *called.values()))
    return table


def notes_of_joins(met: dict[str, tuple[int, int]]) -> list[dict[str, Any]]:
    """What became of the rows of linked files' keys: by name, rows and those that met a partner."""
    found = []
    for name, (rows, matched) in sorted(met.items()):
        lost = rows - matched
        text = f"data.join.{name}: {lost:,} of {rows:,} rows ({lost / max(rows, 1):.1%}) have no partner in the file"
        if lost:
            cure = f"Check that the keys of data.join.{name} are written alike, and that the file is whole."
            found.append(finding(WARNING, "rows", f"{text}; its columns are unknown there.", cure))
        else:
            found.append(
                finding(FACT, "rows", f"data.join.{name}: all {rows:,} rows met their partner in the file.")
            )
    return found
