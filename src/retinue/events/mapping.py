"""Options that map a stranger's columns: what they must name, and what was made of them, as findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

import polars as pl

from retinue.events.joins import Linked, notes_of_joins
from retinue.events.notes import FACT, PROBLEM, WARNING, finding
from retinue.events.reading import RawTable, check_cells, nearest, unreadable
from retinue.events.rows import BY_FILTER, row_filter
from retinue.events.tally import Tally
from retinue.events.words import GIVEN_BACK, PARTLY_BACK, given_names, looks_like_events, plain
from retinue.options import ColumnOptions, DataOptions, Source
from retinue.schema import EVENT_TYPE, ORDER, InputError, listed, shown

_OURS = [item.name for item in fields(ColumnOptions)]
_FILES_ONLY = ("columns_of", "join", "keep_where", "status_counts", "event_names")
_EVENT_COLUMNS = (
    "event",
    "eventname",
    "eventtype",
    "eventaction",
    "type",
    "kind",
    "action",
    "activity",
    "metric",
    "topic",
)
_SEEN_ROWS = 2_000
_SHOWN = 6


def check_mapping(options: DataOptions) -> None:
    """Whether the mapping is well formed, before a file is opened.

    Raises:
        InputError: an option that only data=files reads, or a column of ours that does not exist.
    """
    if options.source is not Source.files:
        for name in _FILES_ONLY:
            if getattr(options, name):
                raise InputError(
                    f"data.{name}: is read with data=files only; data={options.source.value} has its own columns. "
                    f"Leave data.{name} out, or give your file with data=files data.path=<file>."
                )
    for kind, columns in options.columns_of.items():
        for ours in columns:
            if ours not in _OURS or ours == EVENT_TYPE:
                raise InputError(
                    f"data.columns_of.{kind}.{ours}: there is no such column of ours; there are "
                    f"{', '.join(name for name in _OURS if name != EVENT_TYPE)}.{nearest(ours, _OURS)}"
                )
        if kind not in options.paths and options.path is None:
            raise InputError(
                f"data.columns_of.{kind}: there are no events of type '{kind}' to read. "
                f"Set data.paths.{kind}=<file>, or data.path=<file> whose event_type names them."
            )


def column_of(table: RawTable, kind: str, ours: str, theirs: str) -> str:
    """The column that data.columns_of names.

    Raises:
        InputError: the file has none of that name.
    """
    if theirs not in table.columns:
        raise InputError(
            f"{table.label}: there is no column '{shown(theirs)}' (data.columns_of.{kind}.{ours}); it has "
            f"{listed(table.columns)}.{nearest(theirs, table.columns)} Set data.columns_of.{kind}.{ours}=<name>."
        )
    return theirs


def columns_by_type(
    table: RawTable, options: DataOptions, expressions: dict[str, pl.Expr], names: dict[str, str]
) -> None:
    """Columns that differ by the type of the row, in a file that holds several types; changes both in place."""
    kind = expressions[EVENT_TYPE].str.strip_chars()
    for type_name, columns in sorted(options.columns_of.items()):
        if type_name in options.paths:
            continue
        for ours, theirs in columns.items():
            column = pl.col(column_of(table, type_name, ours, theirs))
            rest = expressions.get(ours, pl.lit(None))
            expressions[ours] = pl.when(kind == type_name).then(column).otherwise(rest)
            check_cells(table, {ours: theirs})
            names.setdefault(ours, theirs)


def check_used(options: DataOptions, linked: Iterable[Linked], tables: list[RawTable]) -> None:
    """Whether each filter and each linked file met a file that has its columns.

    Raises:
        InputError: none has.
    """
    seen = sorted({column for table in tables for column in table.columns})
    for one in linked:
        if not any(one.left in table.columns for table in tables):
            raise InputError(
                f"data.join.{one.name}: no file has its key '{one.left}'; there are {listed(seen)}."
                f"{nearest(one.left, seen)}"
            )
    chosen = row_filter(options.keep_where)
    if chosen and not any(set(chosen.columns) <= set(table.columns) for table in tables):
        raise InputError(
            f"data.keep_where={options.keep_where}: no file has all of its columns ({listed(chosen.columns)}); "
            f"there are {listed(seen)}."
        )


def unread_events(table: RawTable, names: Mapping[str, str], options: DataOptions) -> list[dict[str, Any]]:
    """A problem where a column names kinds of events and no option reads it, so that every row is one kind."""
    for column in table.columns:
        low = column.lower().replace("_", "").replace(" ", "")
        if low not in _EVENT_COLUMNS or column in names.values():
            continue
        try:
            head = table.frame.select(pl.col(column).cast(pl.String, strict=False)).head(_SEEN_ROWS).collect()
        except pl.exceptions.PolarsError as error:
            raise unreadable(table.label, error) from error
        words = head.to_series().drop_nulls().unique(maintain_order=True).to_list()
        if len(words) > 1 and looks_like_events(words):
            some = listed(words[:_SHOWN])
            text = (
                f"{table.label}: column '{column}' seems to say what happened ({some}), but is not read: every row is "
                f"one {options.event_type}."
            )
            return [finding(PROBLEM, "rows", text, f"Set data.columns.event_type='{column}'.")]
    return []


def mapping_findings(options: DataOptions, tally: Tally) -> Iterator[dict[str, Any]]:
    """What filter, status, event names, linked files and made events did to the rows."""
    yield from tally.remarks
    yield from notes_of_joins({name: (rows, tally.met[name]) for name, rows in tally.joined.items()})
    yield from _of_left_out(options, tally)
    yield from _of_statuses(options, tally)
    yield from _of_words(options, tally)
    yield from _of_made(tally)
    if tally.normalised.count:
        rules = ",".join(rule.value for rule in options.id_normalise)
        example = f" ({tally.normalised})" if tally.normalised.value else ""
        text = f"{tally.normalised.count:,} customer ids were written otherwise and are made alike{example}"
        yield finding(FACT, "identity", f"{text}: data.id_normalise=[{rules}].")


def _money(amount: float) -> str:
    return f", {amount:,.2f} in all" if amount else ""


def _of_left_out(options: DataOptions, tally: Tally) -> Iterator[dict[str, Any]]:
    for reason, count in sorted(tally.left_out.items(), key=lambda item: (-item[1], item[0])):
        text = f"{count:,} rows ({count / tally.rows_in:.1%}{_money(tally.left_money[reason])}) are left out: {shown(reason)}."
        if reason == BY_FILTER or options.status_counts:
            yield finding(FACT, "rows", text)
        else:
            counted = sorted({*tally.statuses} - GIVEN_BACK)
            some = ",".join([*counted[:_SHOWN], "…"] if len(counted) > _SHOWN else counted) or "paid"
            yield finding(
                WARNING, "rows", text, f"Set data.status_counts='[{some}]' to say which orders count."
            )


def _of_statuses(options: DataOptions, tally: Tally) -> Iterator[dict[str, Any]]:
    if not tally.statuses and not tally.left_out:
        return
    by_rows = sorted(tally.statuses.items(), key=lambda item: (-item[1], item[0]))
    if by_rows:
        words = ", ".join(
            f"'{shown(word)}' {count:,}{_money(tally.status_money[word])}" for word, count in by_rows[:20]
        )
        rest = f"; {tally.no_status:,} rows without a status count too" if tally.no_status else ""
        yield finding(FACT, "rows", f"order rows that count, by status: {words}{rest}.")
    seen = {*tally.statuses, *tally.left_statuses}
    for word in options.status_counts:
        if seen and plain(word) not in seen:
            text = f"data.status_counts names '{word}', which no order row has."
            yield finding(
                WARNING,
                "rows",
                text,
                f"The statuses are {', '.join(sorted(seen)[:20])}.{nearest(plain(word), seen)}",
            )
    partly = sum(tally.statuses[word] for word in PARTLY_BACK)
    if partly and not tally.made["refund"]:
        text = f"{partly:,} order rows are partly refunded by their status, but no column says how much went back."
        yield finding(WARNING, "refunds", text, "Set data.columns.refunded_amount=<name>.")


def _of_words(options: DataOptions, tally: Tally) -> Iterator[dict[str, Any]]:
    for (theirs, ours), count in sorted(tally.understood.items()):
        yield finding(FACT, "rows", f"'{shown(theirs)}' is read as {ours} in {count:,} rows.")
    orders = sorted(theirs for theirs, ours in tally.understood if ours == ORDER)
    given = given_names(options.event_names)
    if len(orders) > 1 and not {word.lower() for word in orders} <= set(given):
        text = f"{' and '.join(repr(word) for word in orders)} are both read as orders: a purchase may count twice."
        yield finding(WARNING, "rows", text, f"Set data.event_names.order='{orders[0]}' if it says it all.")
    held = {theirs.lower() for theirs, _ in tally.understood}
    for word in sorted(set(given) - held):
        text = f"data.event_names gives '{word}' for {given[word]}, but no row holds it."
        yield finding(WARNING, "rows", text, "Check how the word is written in the file.")


def _of_made(tally: Tally) -> Iterator[dict[str, Any]]:
    for kind, count in sorted((+tally.made).items()):
        if kind == "refund":
            text = f"{count:,} refunds are made from order rows, {tally.made_money[kind]:,.2f} in all"
            cure = None
            if not tally.refunds_dated:
                text += "; they are dated as their orders, so that they seem known earlier than they were"
                cure = "Set data.columns.refund_time=<name> if the file says when money went back."
            yield finding(FACT, "refunds", f"{text}.", cure)
        else:
            text = (
                f"{count:,} rows say yes or no to being contacted; an event is kept where the answer changes."
            )
            yield finding(FACT, "consent", text)
