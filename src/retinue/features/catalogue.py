"""What a feature is, which of them a base can have, and the page that lists them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import polars as pl


class Family(Enum):
    """What a feature looks at."""

    btyd = "BTYD"
    volume = "volume"
    rhythm = "rhythm"
    basket = "basket"
    price = "price"
    returns = "returns"
    channel = "channel"
    timing = "timing"
    engagement = "engagement"
    campaigns = "campaigns"
    service = "service"
    subscription = "subscription"
    loyalty = "loyalty and advocacy"
    cohort = "cohort"
    calendar = "calendar"


@dataclass(frozen=True)
class Feature:
    """One column of the features table, declared once.

    Attributes:
        name: Column name; ends in its unit or window where it has one.
        unit: What the number counts.
        family: Which family it belongs to.
        sentence: What it says, in one sentence.
        null: What a null means; "never" where there is none.
        value: The column from the joined aggregates of its family.
        types: Event types of which the base must have at least one.
        columns: Event columns that the base must have, all of them.
        needs_clock: Whether event times must carry a time of day.
        dtype: Float64 except for labels and dates.
    """

    name: str
    unit: str
    family: Family
    sentence: str
    null: str
    value: pl.Expr
    types: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    needs_clock: bool = False
    dtype: pl.DataType = pl.Float64()  # noqa: RUF009 (an immutable value)

    def lacking(
        self, columns: Sequence[str], types: Sequence[str] | None, has_clock: bool = True
    ) -> str | None:
        """What the base lacks for this feature, in words, or None; `types` None means that all may occur."""
        missing = [column for column in self.columns if column not in columns]
        if missing:
            return f"events have no column {' and '.join(missing)}"
        if self.types and types is not None and not set(self.types) & set(types):
            return f"there are no events of type {' or '.join(self.types)}"
        if self.needs_clock and not has_clock:
            return "event times carry no time of day"
        return None


@dataclass(frozen=True)
class LeftOut:
    """A feature the base cannot have, and why."""

    feature: Feature
    reason: str

    def __str__(self) -> str:
        return f"{self.feature.name} is left out: {self.reason}."


def split(
    catalogue: Sequence[Feature], columns: Sequence[str], types: Sequence[str] | None, has_clock: bool = True
) -> tuple[tuple[Feature, ...], tuple[LeftOut, ...]]:
    """Features that events with these columns and types support, and the others with their reasons, in order."""
    reasons = [(feature, feature.lacking(columns, types, has_clock)) for feature in catalogue]
    kept = tuple(feature for feature, reason in reasons if reason is None)
    return kept, tuple(LeftOut(feature, reason) for feature, reason in reasons if reason is not None)


def markdown(catalogue: Sequence[Feature]) -> str:
    """The docs page of a catalogue: one table per family."""
    lines = [
        "# Features",
        "",
        f"{len(catalogue)} features per customer and cutoff, from the events that had happened and were known at the",
        "cutoff. A window such as `30d` is the 30 days up to and with the cutoff; whole days are days of the shoppers'",
        "local calendar. A feature whose events or columns a base lacks is left out, and the run says so.",
        "",
        "This page is made from the catalogue; a test holds them equal:",
        "`python -c 'from retinue.features import catalogue_markdown as page; print(page(), end=str())'`",
    ]
    for family in Family:
        lines += [
            "",
            f"## {family.value}",
            "",
            "| feature | unit | meaning | null | needs |",
            "|---|---|---|---|---|",
        ]
        lines += [_line(feature) for feature in catalogue if feature.family is family]
    return "\n".join(lines) + "\n"


def _line(feature: Feature) -> str:
    needs = [" or ".join(feature.types)] if feature.types else []
    needs += [f"column {column}" for column in feature.columns]
    needs += ["time of day"] if feature.needs_clock else []
    return f"| `{feature.name}` | {feature.unit} | {feature.sentence} | {feature.null} | {'; '.join(needs)} |"
