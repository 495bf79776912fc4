"""What preparation itself noticed, as findings for the quality report: sentences with numbers, and the cure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sized
from dataclasses import dataclass, field, fields
from typing import Any

import polars as pl

from retinue.events.mapping import mapping_findings
from retinue.events.notes import FACT, WARNING, finding
from retinue.events.orders import Grouped, Grouping
from retinue.events.tally import PLAIN, Tally
from retinue.options import DataOptions
from retinue.schema import AMOUNT, CUSTOMER, EVENT_TYPE, ORDER, REFUND, shown


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
        *_of_money(tally, stored, grouping),
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
        text = f"{count:,} rows ({share:.1%}) are quarantined: {reason}."
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


def _of_money(tally: Tally, stored: Stored, grouping: Grouping) -> Iterator[dict[str, Any]]:
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
    if stored.zero_orders:
        share = stored.zero_orders / max(stored.types[ORDER], 1)
        text = f"orders with an amount of exactly zero: {stored.zero_orders:,} ({share:.1%}); kept as orders."
        yield finding(FACT, "money", text, "Leave them out of the export if they are not purchases.")
    if AMOUNT in grouping.columns and tally.empty_amounts:
        text = f"{tally.empty_amounts:,} order rows have no amount; they count as orders without money."
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
