"""What the two gates say of every query, and whether they see at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.parity.queries import (
    ONE_PARTITION,
    Named,
    function_of,
    lazy_functions,
    queries,
    unstreamable,
    untranslatable,
)
from tests.parity.translation import streaming_errors, translation_errors


@dataclass(frozen=True)
class Verdict:
    """What the gates say of one query.

    Attributes:
        name: Of the query.
        untranslated: What cuDF cannot run of it.
        unstreamed: Why it needs all rows in one partition.
        reason: Why it may, where it is on the short list.
    """

    name: str
    untranslated: list[str]
    unstreamed: list[str]
    reason: str | None

    @property
    def fault(self) -> str:
        """What must be put right, in words; empty where nothing is."""
        if self.untranslated:
            return f"does not translate: {'; '.join(self.untranslated)}"
        if self.reason and not self.unstreamed:
            return "streams by now: take it off the list"
        if self.unstreamed and not self.reason:
            return f"does not stream: {'; '.join(self.unstreamed)}"
        return ""

    @property
    def words(self) -> str:
        """The fault, or how the query runs."""
        return self.fault or (
            f"translates; one partition: {self.reason}" if self.reason else "translates and streams"
        )


def verdicts(folder: Path) -> Iterator[Verdict]:
    """Of every query; `folder` as in `queries`."""
    return judged(queries(folder), ONE_PARTITION)


def judged(named: Iterator[Named], may_need_one: Mapping[str, str]) -> Iterator[Verdict]:
    """What the gates say of these queries, some of which may need one partition."""
    for name, query in named:
        errors = translation_errors(query)
        yield Verdict(name, errors, [] if errors else streaming_errors(query), may_need_one.get(name))


def summary(found: Sequence[Verdict]) -> str:
    """How many of the queries pass which gate."""
    translate = [verdict for verdict in found if not verdict.untranslated]
    stream = [verdict for verdict in translate if not verdict.unstreamed]
    return (
        f"{len(translate)} of {len(found)} queries translate to cuDF, {len(stream)} of them stream over partitions, "
        f"{sum(verdict.reason is not None for verdict in found)} may need one partition"
    )


def forgotten(names: set[str]) -> list[str]:
    """Functions that make queries and of which none is named so, and names on the short list that no query has."""
    asked = {function_of(name) for name in names}
    return sorted((lazy_functions() - asked) | (set(ONE_PARTITION) - names))


def blind_to() -> list[str]:
    """Queries that a gate should refuse and lets through; empty where the gates see."""
    seen = [] if translation_errors(untranslatable()) else ["a list operation"]
    for name, query in unstreamable().items():
        if translation_errors(query) or not streaming_errors(query):
            seen.append(name)
    return seen
