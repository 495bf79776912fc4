"""What preparation itself noticed, as findings for the quality report: sentences with numbers, and the cure."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sized
from dataclasses import dataclass, field, fields
from typing import Any

import polars as pl

from retinue.events.mapping import mapping_findings
from retinue.events.notes import FACT, WARNING, finding
from retinue.events.orders import ORDER_GAP_DAYS, Grouped, Grouping
from retinue.events.tally import PLAIN, Tally
from retinue.options import DataOptions
from retinue.schema import (
    AMOUNT,
    CUSTOMER,
    EVENT_TYPE,
    KNOWN_EVENT_TYPES,
    ORDER,
    REFUND,
    shown,
)

_SYNONYMS = {
    **dict.fromkeys(("sale", "sales", "purchase", "bought", "transaction", "sold"), ORDER),
    **dict.fromkeys(("return", "returned", "refunded", "chargeback", "credit note"), REFUND),
}
_MOSTLY = 0.8
_MUCH_MONEY = 0.01


@dataclass
class Stored:
    """Counts of pass 2, over all shards."""

    rows: int = 0
    events: int = 0
    customers: int = 0
    duplicates: int = 0
    kept_repeats: int = 0
    full_cancellations: int = 0
    zero_orders: int = 0
    empty_orders: int = 0
    restarted: int = 0
    merged_lines: int = 0
    several_lines: int = 0
    alike_lines: int = 0
    alike_money: float = 0.0
    types: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, grouped: Grouped) -> Stored:
        """Of one shard."""
        events = grouped.events
        zero: Sized = (
            events.filter(pl.col(EVENT_TYPE) == ORDER, pl.col(AMOUNT) == 0)
            if AMOUNT in events.columns
            else []
        )
        return cls(
            grouped.rows,
            events.height,
            events[CUSTOMER].n_unique(),
            grouped.duplicates,
            grouped.kept_repeats,
            grouped.full_cancellations,
            len(zero),
            events.filter(pl.col(EVENT_TYPE) == ORDER)[AMOUNT].null_count()
            if AMOUNT in events.columns
            else 0,
            grouped.restarted,
            grouped.merged_lines,
            grouped.several_lines,
            grouped.alike_lines,
            grouped.alike_money,
            Counter(dict(events.group_by(EVENT_TYPE).len().iter_rows())),
        )

    def __add__(self, other: Stored) -> Stored:
        return Stored(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def findings(options: DataOptions, tally: Tally, stored: Stored, grouping: Grouping) -> list[dict[str, Any]]:
    """Everything worth telling that only the raw rows show, in a fixed order."""
    return [
        *_of_rows(tally, stored, grouping),
        *mapping_findings(options, tally),
        *_of_times(options, tally),
        *_of_identity(tally),
        *_of_kinds(stored),
        *_of_money(options, tally, stored, grouping),
    ]


def _of_rows(tally: Tally, stored: Stored, grouping: Grouping) -> Iterator[dict[str, Any]]:
    made, left = tally.made_rows, tally.left_out_rows
    kept = tally.rows_in + made - tally.quarantined - stored.duplicates - left
    yield finding(
        FACT, "rows",
        f"{tally.rows_in:,} rows in{f' + {made:,} made from columns' if made else ''} = {kept:,} stored + "
        f"{tally.quarantined:,} quarantined + {stored.duplicates:,} merged as exact duplicates"
        f"{f' + {left:,} left out' if left else ''}; "
        f"the stored rows make {stored.events:,} event{'' if stored.events == 1 else 's'}.",
    )  # fmt: skip
    for note in tally.notes:
        yield finding(FACT, "files", f"{note}.")
    for reason, count in sorted(tally.reasons.items(), key=lambda item: (-item[1], item[0])):
        share = count / tally.rows_in
        level = WARNING if share >= 0.01 else FACT
        money, all_money = tally.reason_money[reason], tally.order_money + sum(tally.reason_money.values())
        part = f", and {money / all_money:.1%} of the money" if money and all_money else ""
        text = f"{count:,} rows ({share:.1%} of the rows{part}) are quarantined: {reason}."
        if part and money / all_money >= _MUCH_MONEY:
            share = 1.0
        yield finding(level, "rows", text, "Look at quarantine.parquet: it keeps file, row and values.")
    examples = [("times", tally.bad_times), ("numbers", tally.bad_numbers), ("values", tally.impossible)]
    for what, bad in examples:
        for column, example in sorted(bad.items()):
            text = f"column '{column}' has {example.count:,} unusable {what} ({example})."
            cure = "Fix the export, or name the text in data.null_values."
            yield finding(WARNING, "rows", text, PLAIN if what == "numbers" and example.has_digit else cure)
    if grouping.merge_duplicates is False:
        text = "rows equal in every column are kept as separate rows (data.merge_duplicates=false)."
        yield finding(FACT, "rows", text)
    elif stored.kept_repeats:
        text = (
            f"{stored.kept_repeats:,} rows equal another in every column and carry neither a clock nor an order id; "
            "they are kept as two purchases."
        )
        yield finding(FACT, "rows", text, "Set data.merge_duplicates=true if your export repeats rows.")


def _of_times(options: DataOptions, tally: Tally) -> Iterator[dict[str, Any]]:
    for column, example in sorted(tally.naive.items()):
        if options.time_zone is None and example.count:
            text = f"column '{column}' has {example.count:,} times without a zone ({example}); they are read as UTC."
            yield finding(
                WARNING, "time", text, "Set data.time_zone=Europe/London, or the zone of your shop."
            )
    if tally.excel_days.count:
        text = f"{tally.excel_days.count:,} times are Excel's day numbers ({tally.excel_days}) and are read as such."
        yield finding(FACT, "time", text)
    if tally.shifted.count:
        text = f"{tally.shifted.count:,} times fall into the hour that clocks skip in spring ({tally.shifted}); moved."
        yield finding(FACT, "time", text, "Export times with an offset.")
    if options.observation_end is None:
        text = "the end of observation is taken to be the end of the day of the last event."
        yield finding(FACT, "time", text, "Set data.observation_end=<last day the export covers>.")


def _of_identity(tally: Tally) -> Iterator[dict[str, Any]]:
    if tally.number_ids and tally.text_ids.count:
        text = f"customer ids are mixed: {tally.number_ids:,} are whole numbers, {tally.text_ids.count:,} are texts"
        example = f" ({tally.text_ids})" if tally.text_ids.value else ""
        yield finding(
            WARNING, "identity", f"{text}{example}.", "Check that one person does not go by two ids."
        )
    if tally.trimmed_ids.count:
        example = f" ({tally.trimmed_ids})" if tally.trimmed_ids.value else ""
        text = f"{tally.trimmed_ids.count:,} customer ids end in '.0' and are read without it{example}."
        yield finding(FACT, "identity", text, "Export ids as whole numbers or text.")


def _of_kinds(stored: Stored) -> Iterator[dict[str, Any]]:
    """Event types that we do not know and that look like one that we know."""
    known = {name: name for name in KNOWN_EVENT_TYPES} | _SYNONYMS
    for kind in sorted(stored.types):
        if kind in KNOWN_EVENT_TYPES:
            continue
        near = difflib.get_close_matches(kind.lower(), list(known), 1, 0.75)
        if near:
            ours = known[near[0]]
            text = f"{stored.types[kind]:,} events are of the type '{shown(kind)}', which is not known; {ours} is."
            yield finding(
                WARNING, "rows", text, f"Set data.event_names.{ours}='{shown(kind)}' if it is the same."
            )


def _of_lines(options: DataOptions, stored: Stored) -> Iterator[dict[str, Any]]:
    """What became of the rows of orders with numbers."""
    if stored.restarted:
        text = (
            f"order numbers begin again: {stored.restarted:,} orders have the number of an earlier one of the same customer, "
            f"more than {ORDER_GAP_DAYS} days before; they are orders of their own."
        )
        yield finding(WARNING, "money", text, "Export order numbers that are never used twice.")
    alike = stored.alike_lines >= 2 and stored.alike_lines > _MOSTLY * stored.several_lines
    if alike and options.amount_is is None:
        text = (
            f"in {stored.alike_lines:,} of {stored.several_lines:,} orders of several rows every row has the same amount: it may "
            f"be the order's total, counted more than once ({stored.alike_money:,.2f} too much)."
        )
        cure = "Set data.amount_is=order_total if it is, data.amount_is=line if it is not."
        yield finding(WARNING, "money", text, cure)
    if stored.merged_lines:
        text = f"{stored.merged_lines:,} rows equal another of the same order in every column and are merged."
        cure = "Set data.merge_duplicates=false if an order may hold the same line twice."
        yield finding(FACT, "money", text, cure)


def _of_money(
    options: DataOptions, tally: Tally, stored: Stored, grouping: Grouping
) -> Iterator[dict[str, Any]]:
    if AMOUNT not in grouping.columns:
        text = "no column holds amounts: orders and churn can be forecast, spend and clv cannot."
        yield finding(WARNING, "money", text, "Set data.columns.amount=<name>.")
    for column, form in sorted(tally.number_forms.items()):
        text = f"column '{shown(column)}' is read with a {form}, the one reading that fits all of it."
        yield finding(FACT, "money", text, "Set data.decimal=point or comma where that is wrong.")
    if tally.negative_orders.count:
        below = tally.negative_orders
        text = f"{below.count:,} order rows have a negative amount ({below}); stored as refunds."
        yield finding(FACT, "money", text)
    if tally.positive_refunds.count:
        back = tally.positive_refunds
        text = f"{back.count:,} refund rows have a positive amount ({back}); a refund is money back whatever its sign."
        yield finding(FACT, "money", text)
    yield from _of_lines(options, stored)
    if stored.zero_orders:
        share = stored.zero_orders / max(stored.types[ORDER], 1)
        text = f"orders with an amount of exactly zero: {stored.zero_orders:,} ({share:.1%}); kept as orders."
        yield finding(FACT, "money", text, "Leave them out of the export if they are not purchases.")
    if AMOUNT in grouping.columns and stored.empty_orders:
        text = f"{stored.empty_orders:,} orders have no amount; they count as orders without money."
        yield finding(WARNING, "money", text, "Fill the amounts in the export.")
    if tally.negative_discounts:
        text = f"{tally.negative_discounts:,} discounts are negative and are read as their size."
        yield finding(FACT, "money", text)
    if stored.full_cancellations:
        text = (
            f"{stored.full_cancellations:,} of {stored.types[REFUND]:,} refunds undo a whole order of the customer "
            "within a day; both are kept and the refund carries the order's id."
        )
        yield finding(FACT, "refunds", text)
