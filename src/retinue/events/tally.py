"""What pass 1 counts while rows stream by: bad values with their first example, forms of times, ranges, kinds."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, TypeVar

import polars as pl

from retinue.events.clock import NAIVE, OFFSET
from retinue.schema import UTC_TIME, InputError, shown

K = TypeVar("K")

_COUNTERS = ("left_out", "left_statuses", "statuses", "understood", "joined", "met", "made")
_MOST_STATUSES = 1_000

PLAIN = (
    "Write plain decimals such as 1234.56 in the export: no currency sign, no thousands separator, a point."
)


@dataclass
class Example:
    """How often something was seen, and where first."""

    count: int = 0
    value: str = ""
    file: str = ""
    row: int = 0

    def add(self, values: pl.Series, rows: pl.Series, file: str) -> None:
        """Counts the values; the first of all is kept as the example."""
        if len(values) and self.count == 0:
            value = values[0]
            self.value, self.file, self.row = ("" if value is None else shown(value)), file, int(rows[0])
        self.count += len(values)

    def __add__(self, other: Example) -> Example:
        first = self if self.count else other
        return replace(first, count=self.count + other.count)

    @property
    def has_digit(self) -> bool:
        """Whether the example is a number written otherwise, not a word for unknown."""
        return any(letter.isdigit() for letter in self.value)

    def __str__(self) -> str:
        return f"first: '{self.value}', {self.file} row {self.row:,}"


@dataclass
class Tally:
    """Counts of pass 1, over all inputs."""

    rows_in: int = 0
    quarantined: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    bad_times: dict[str, Example] = field(default_factory=lambda: defaultdict(Example))
    bad_numbers: dict[str, Example] = field(default_factory=lambda: defaultdict(Example))
    impossible: dict[str, Example] = field(default_factory=lambda: defaultdict(Example))
    rows_of: Counter[str] = field(default_factory=Counter)
    forms: dict[tuple[str, str], dict[int, Example]] = field(default_factory=dict)
    naive: dict[str, Example] = field(default_factory=lambda: defaultdict(Example))
    shifted: Example = field(default_factory=Example)
    filled: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    clock_types: set[str] = field(default_factory=set)
    currencies: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    number_ids: int = 0
    text_ids: Example = field(default_factory=Example)
    trimmed_ids: Example = field(default_factory=Example)
    excel_days: Example = field(default_factory=Example)
    number_forms: dict[str, str] = field(default_factory=dict)
    broken_lines: Example = field(default_factory=Example)
    notes: list[str] = field(default_factory=list)
    negative_orders: Example = field(default_factory=Example)
    negative_discounts: int = 0
    positive_refunds: Example = field(default_factory=Example)
    order_money: float = 0.0
    reason_money: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    left_out: Counter[str] = field(default_factory=Counter)
    left_money: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    left_statuses: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    status_money: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    understood: Counter[tuple[str, str]] = field(default_factory=Counter)
    joined: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)
    made: Counter[str] = field(default_factory=Counter)
    made_money: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    no_status: int = 0
    refunds_dated: bool = False
    bad_consents: dict[str, Example] = field(default_factory=lambda: defaultdict(Example))
    normalised: Example = field(default_factory=Example)
    remarks: list[dict[str, Any]] = field(default_factory=list)
    future: Example = field(default_factory=Example)
    future_from: datetime | None = None
    first_time: datetime | None = None
    last_time: datetime | None = None

    def add(self, later: Tally) -> None:
        """Adds what was counted in later rows."""
        for name in (
            "rows_in",
            "quarantined",
            "number_ids",
            "negative_discounts",
            "order_money",
            "no_status",
        ):
            setattr(self, name, getattr(self, name) + getattr(later, name))
        for name in (*_COUNTERS, "reasons", "rows_of", "filled", "types"):
            getattr(self, name).update(getattr(later, name))
        for name in ("left_money", "status_money", "made_money", "reason_money"):
            for key, money in getattr(later, name).items():
                getattr(self, name)[key] += money
        self.refunds_dated |= later.refunds_dated
        self.remarks += [note for note in later.remarks if note not in self.remarks]
        for name in ("bad_times", "bad_numbers", "impossible", "naive", "bad_consents"):
            _add_examples(getattr(self, name), getattr(later, name))
        for name in (
            "shifted",
            "text_ids",
            "trimmed_ids",
            "negative_orders",
            "positive_refunds",
            "future",
            "broken_lines",
            "excel_days",
            "normalised",
        ):
            setattr(self, name, getattr(self, name) + getattr(later, name))
        for key, forms in later.forms.items():
            _add_examples(self.forms.setdefault(key, {}), forms)
        self.clock_types |= later.clock_types
        known = [moment for moment in (self.future_from, later.future_from) if moment is not None]
        self.future_from = min(known, default=None)
        self.notes += later.notes
        self.number_forms |= later.number_forms
        for base, seen in later.currencies.items():
            self.currencies[base].update(seen)
        self.span(pl.Series([later.first_time, later.last_time], dtype=UTC_TIME))

    def add_made(self, later: Tally, own: set[str]) -> None:
        """Adds what was counted of events made from columns of rows that are counted already.

        Args:
            later: the counts of the made events.
            own: columns that only the made events read.
        """
        self.quarantined += later.quarantined
        for name in ("reasons", "filled", "types"):
            getattr(self, name).update(getattr(later, name))
        for name in ("bad_times", "bad_numbers", "naive"):
            mine = {column: example for column, example in getattr(later, name).items() if column in own}
            _add_examples(getattr(self, name), mine)
        for (group, column), forms in later.forms.items():
            if column in own:
                _add_examples(self.forms.setdefault((group, column), {}), forms)
        self.span(pl.Series([later.first_time, later.last_time], dtype=UTC_TIME))

    def mask(self) -> None:
        """Leaves of every example its form alone: letters as x, digits as 9."""
        held = [getattr(self, item.name) for item in fields(self)]
        nested = [list(one.values()) for one in held if isinstance(one, dict)]
        deeper = [list(one.values()) for group in nested for one in group if isinstance(one, dict)]
        for one in [*held, *(each for group in (*nested, *deeper) for each in group)]:
            if isinstance(one, Example):
                one.value = re.sub(r"[^\W\d_]", "x", re.sub(r"\d", "9", one.value))

    def span(self, times: pl.Series) -> None:
        """Widens the range of event times."""
        low: Any = times.min()
        high: Any = times.max()
        if low is not None:
            self.first_time = low if self.first_time is None else min(self.first_time, low)
            self.last_time = high if self.last_time is None else max(self.last_time, high)

    @property
    def made_rows(self) -> int:
        """Events that columns of other rows tell of."""
        return self.made.total()

    @property
    def left_out_rows(self) -> int:
        """Rows left out by the filter or by the state of their order."""
        return self.left_out.total()

    def check_statuses(self, column: str) -> None:
        """Raises InputError where a column of states holds more words than any shop has states."""
        if len(self.statuses) + len(self.left_statuses) > _MOST_STATUSES:
            raise InputError(
                f"events: column '{column}' has more than {_MOST_STATUSES:,} different values: it is no status of "
                "orders. Set data.columns.status=<the column with paid, shipped, cancelled, …>."
            )

    def add_future(self, times: pl.Series, rows: pl.Series, file: str) -> None:
        """Counts times that lie in the future by the clock of this machine."""
        self.future.add(times, rows, file)
        first: Any = times.min()
        if first is not None:
            self.future_from = first if self.future_from is None else min(self.future_from, first)

    def has_clock(self, types: tuple[str, ...]) -> bool:
        """Whether orders carry a time of day; where there are no orders, whether anything does."""
        seen = [kind for kind in self.types if kind in types]
        return bool(self.clock_types & set(seen)) if seen else bool(self.clock_types)

    def check(self, max_bad_share: float, labels: list[str], null_values: list[str]) -> None:
        """The verdict on what was read.

        Raises:
            InputError: no rows, mixed times, mixed currencies, too many bad values, or nothing left.
        """
        where = ", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")
        if self.rows_in == 0:
            raise InputError(
                f"{where}: has a header but no rows. Export it again, or leave it out of data.path."
            )
        self._check_forms()
        self._check_consents()
        self._check_currencies()
        self._check_shares(max_bad_share, null_values)
        if self.quarantined + self.left_out_rows == self.rows_in + self.made_rows:
            lost = self.reasons + self.left_out
            why = "; ".join(f"{reason}: {count:,}" for reason, count in lost.most_common(3))
            raise InputError(
                f"{where}: none of the {self.rows_in:,} rows can be used ({why}). Check data.columns.* and the export."
            )

    def _check_forms(self) -> None:
        for (_, column), forms in sorted(self.forms.items()):
            naive = [example for form, example in sorted(forms.items()) if form <= NAIVE and example.count]
            offset = forms.get(OFFSET)
            if naive and offset and offset.count:
                count = sum(example.count for example in naive)
                raise InputError(
                    f"events: column '{column}' mixes {count:,} times without a zone ({naive[-1]}) and "
                    f"{offset.count:,} with an offset ({offset}). Export all with an offset, or none and set "
                    "data.time_zone=Europe/London."
                )

    def _check_consents(self) -> None:
        bad = sorted((column, example) for column, example in self.bad_consents.items() if example.count)
        if bad:
            column, example = bad[0]
            raise InputError(
                f"events: column '{column}' has {example.count:,} words for consent that are neither yes nor no "
                f"({example}). Set data.consent_yes=['{example.value}'], data.consent_no=['{example.value}'], or, where "
                f"it is neither, data.null_values=['','{example.value}']."
            )

    def _check_currencies(self) -> None:
        for base, seen in sorted(self.currencies.items()):
            if len(seen) > 1:
                counts = ", ".join(f"{name} in {count:,} rows" for name, count in sorted(seen.items()))
                raise InputError(
                    f"events: base '{base}' holds more than one currency ({counts}). Convert amounts to one, or give "
                    "each its own base with data.columns.base."
                )

    def _check_shares(self, share: float, null_values: list[str]) -> None:
        if self.future.count > share * self.rows_in:
            raise InputError(
                f"events: {self.future.count:,} of {self.rows_in:,} rows lie in the future by this machine's clock "
                f"({self.future}). Set the clock right, or give data.observation_end=<last day the export covers>."
            )
        if self.broken_lines.count > share * self.rows_in:
            why = next(reason for reason, _ in self.reasons.most_common() if reason.startswith("line: "))
            raise InputError(
                f"events: {self.broken_lines.count:,} of {self.rows_in:,} lines do not fit the header ({self.broken_lines}; "
                f"{why.removeprefix('line: ')}). Export the file again, or set data.separator, or let them be set aside with "
                "data.max_bad_share=1."
            )
        for column, example in self.bad_times.items():
            if example.count > share * self.rows_of[column]:
                raise InputError(
                    f"events: column '{column}' has {example.count:,} missing or unreadable times ({example}). "
                    "Set data.time_format='%d.%m.%Y %H:%M' as your file has it, or fix the export."
                )
        for column, example in self.bad_numbers.items():
            if example.count > share * self.rows_of[column]:
                cure = f"Set data.null_values=['{example.value}'] or fix the export."
                raise InputError(
                    f"events: column '{column}' has {example.count:,} non-numeric values ({example}). "
                    f"{PLAIN if example.has_digit else cure}"
                )
        for column, example in self.impossible.items():
            if example.count > share * self.rows_of[column]:
                raise InputError(
                    f"events: column '{column}' has {example.count:,} impossible values ({example}). Fix the export, "
                    "or leave the column out by renaming it."
                )


def _add_examples(mine: dict[K, Example], later: dict[K, Example]) -> None:
    for key, example in later.items():
        mine[key] = mine.get(key, Example()) + example


def examples_where(
    table: pl.DataFrame, mask: pl.Series, values: pl.Series, example: Example, file: str, row: str
) -> None:
    """Adds the values under the mask to an example."""
    if mask.any():
        example.add(values.filter(mask), table[row].filter(mask), file)
