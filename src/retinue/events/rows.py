"""Which rows of a raw table count: the user's own filter, and the state of an order."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import polars as pl

from retinue.events.reading import RawTable, nearest, unreadable
from retinue.events.words import GIVEN_BACK, NO_SALE, plain, plain_column
from retinue.options import DataOptions
from retinue.schema import CUSTOMER_ID, EVENT_TYPE, ORDER, ORDER_ID, STATUS, InputError, listed, shown

# why a row is left out, or null; and the state of the order that the row belongs to, of order rows alone
LEFT_OUT, STATE = "__left_out__", "__state__"
BY_FILTER = "data.keep_where does not hold"
_QUOTED = re.compile(r"('[^']*'|\"[^\"]*\")")


@dataclass(frozen=True)
class Filter:
    """The user's own condition on raw rows, with the columns that it names."""

    text: str
    condition: pl.Expr
    columns: tuple[str, ...]


def row_filter(text: str | None) -> Filter | None:
    """The condition of data.keep_where, read as SQL.

    Raises:
        InputError: the text is no condition.
    """
    if text is None:
        return None
    try:
        condition = pl.sql_expr(_sql(text))
    except (pl.exceptions.PolarsError, pl.exceptions.SQLInterfaceError) as error:
        raise InputError(
            f"data.keep_where={text}: cannot be read ({_first_line(error)}). "
            "Write a condition of SQL, such as \"status in ('paid','shipped')\"."
        ) from error
    columns = tuple(dict.fromkeys(condition.meta.root_names()))
    if not columns:
        raise InputError(
            f"data.keep_where={text}: names no column of yours. Write a condition such as \"status in ('paid','shipped')\"."
        )
    return Filter(text, condition, columns)


def _sql(text: str) -> str:
    """Lists may stand in square brackets, and a cell that is no number is unknown, not an error."""
    parts = _QUOTED.split(text)
    for at in range(0, len(parts), 2):
        parts[at] = parts[at].replace("[", "(").replace("]", ")")
        parts[at] = re.sub(r"\bCAST\s*\(", "TRY_CAST(", parts[at], flags=re.IGNORECASE)
    return "".join(parts)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].strip() if str(error).strip() else type(error).__name__


def filtered(table: RawTable, chosen: Filter) -> RawTable:
    """The table with LEFT_OUT set where the condition does not hold or is unknown.

    Raises:
        InputError: the condition names a column that is not there, compares text with a number, or is no condition.
    """
    there = f"the columns are {listed(table.columns)}"
    for name in chosen.columns:
        if name not in table.columns:
            raise InputError(
                f"{table.label}: data.keep_where names the column '{shown(name)}', which is not there; {there}."
                f'{nearest(name, table.columns)} Write names with blanks in double quotes: "Financial Status".'
            )
    probe = table.frame.select(chosen.condition.alias(LEFT_OUT))
    try:
        kind = probe.collect_schema()[LEFT_OUT]
        probe.head(1).collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise InputError(
            f"{table.label}: data.keep_where={chosen.text} cannot be worked out ({_first_line(error)}); {there}. "
            "Cells of text files are text: write CAST(total AS DOUBLE) > 10."
        ) from error
    if kind != pl.Boolean:
        raise InputError(
            f"{table.label}: data.keep_where={chosen.text} is no condition that holds or does not; {there}. "
            "Write one such as \"status in ('paid','shipped')\"."
        )
    why = pl.when(~chosen.condition.fill_null(False)).then(pl.lit(BY_FILTER))
    return replace(table, frame=table.frame.with_columns(why.alias(LEFT_OUT)))


def filled(values: pl.Expr, options: DataOptions) -> pl.Expr:
    """Stripped texts; what the user calls unknown is null."""
    text = values.cast(pl.String, strict=False).str.strip_chars()
    return pl.when(~text.is_in([*options.null_values, ""])).then(text)


def by_status(table: RawTable, expressions: dict[str, pl.Expr], options: DataOptions) -> RawTable:
    """The table with STATE, and with LEFT_OUT set on order rows whose state is not that of a sale.

    A row without a state has that of its order, where another row of the order says that it is no sale or was given
    back whole: shops write the state on the first line of an order alone.
    """
    is_order = expressions[EVENT_TYPE].cast(pl.String).str.strip_chars().str.to_lowercase() == ORDER
    own = pl.when(is_order).then(plain_column(filled(expressions[STATUS], options)))
    frame = table.frame.with_columns(own.alias(STATE))
    counts = [plain(word) for word in options.status_counts]
    no_sale = ~pl.col(STATE).is_in(counts) if counts else pl.col(STATE).is_in(sorted(NO_SALE))
    if ORDER_ID in expressions:
        special = no_sale if counts else no_sale | pl.col(STATE).is_in(sorted(GIVEN_BACK))
        frame = _state_of_orders(table.label, frame, expressions, special, is_order)
    why: pl.Expr = pl.when(no_sale).then(pl.concat_str(pl.lit("the order's status is '"), STATE, pl.lit("'")))
    if LEFT_OUT in frame.collect_schema():
        why = pl.coalesce(LEFT_OUT, why)
    return replace(table, frame=frame.with_columns(why.alias(LEFT_OUT)))


def _state_of_orders(
    label: str, frame: pl.LazyFrame, expressions: dict[str, pl.Expr], special: pl.Expr, is_order: pl.Expr
) -> pl.LazyFrame:
    """Rows without a state take that of their order; the orders of a special state are held, the rest streams."""
    keys = {f"__key_{name}__": expressions[name].cast(pl.String) for name in (CUSTOMER_ID, ORDER_ID)}
    keyed = frame.with_columns(**keys)
    whole = pl.all_horizontal(pl.col(list(keys)).is_not_null())
    try:
        blank = frame.select((is_order & pl.col(STATE).is_null()).any()).collect(engine="streaming").item()
        if not blank:
            return frame
        orders = keyed.filter(special & whole).group_by(*keys).agg(pl.col(STATE).min().alias("__of_order__"))
        held = orders.collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise unreadable(label, error) from error
    joined = keyed.join(held.lazy(), on=list(keys), how="left", maintain_order="left")
    state = pl.coalesce(STATE, pl.when(is_order).then(pl.col("__of_order__")))
    return joined.with_columns(state.alias(STATE)).drop(*keys, "__of_order__")
