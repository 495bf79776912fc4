"""One batch of raw rows from end to end: which rows count, what they hold, and the events that their columns tell of."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from retinue.events.cleaning import CLOCK, Rules, cleaned, without_broken
from retinue.events.joins import joined_name
from retinue.events.made import MADE_FROM, Made
from retinue.events.rows import BY_FILTER, LEFT_OUT, STATE
from retinue.events.sources import Input
from retinue.events.tally import Tally
from retinue.schema import AMOUNT, EVENT_TYPE, ORDER, REFUND, REFUND_TIME, STATUS


def clean(raw: pl.DataFrame, source: Input, rules: Rules, tally: Tally) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One batch of a raw table as (usable rows in our columns, quarantine rows); counts go to the tally.

    Rows that the filter or the state of their order leaves out are counted and go nowhere; refunds and consent that
    columns of the usable rows tell of come as rows of their own.
    """
    whole, broken = without_broken(raw, source, tally, rules.secret is not None)
    kept, unsold = _without_left_out(whole, source, rules, tally)
    good, aside, usable = cleaned(kept, source, rules, tally)
    told = kept.filter(usable)
    _count_mapped(told, good, source, tally)
    # who orders and does not pay has said yes or no to being contacted all the same
    made = [
        _made(told if one.kind == REFUND else pl.concat([told, unsold]), one, source, rules, tally)
        for one in source.made
    ]
    rows = pl.concat([good, *(some for some, _ in made)], how="diagonal")
    set_aside = [aside, *(some for _, some in made)]
    return rows, pl.concat(set_aside if broken is None else [broken, *set_aside])


def _without_left_out(
    raw: pl.DataFrame, source: Input, rules: Rules, tally: Tally
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that count, and the usable ones of orders that are no sale.

    What is left out is counted by reason, with the money that it would have brought.
    """
    unsold = raw.clear()
    if LEFT_OUT not in raw.columns:
        return raw, unsold
    out = raw.filter(pl.col(LEFT_OUT).is_not_null())
    for (reason,), rows in sorted(out.partition_by(LEFT_OUT, as_dict=True).items()):
        tally.left_out[str(reason)] += rows.height
        counts = Tally()
        good, _, usable = cleaned(rows, source, rules, counts)
        if AMOUNT in good.columns:
            tally.left_money[str(reason)] += float(good[AMOUNT].sum())
        if reason != BY_FILTER:
            unsold = pl.concat([unsold, rows.filter(usable)])
            for column, example in counts.bad_consents.items():
                tally.bad_consents[column] += example
    if STATE in raw.columns:
        tally.left_statuses.update(dict(out.drop_nulls(STATE)[STATE].value_counts().iter_rows()))
        tally.check_statuses(source.names[STATUS])
    tally.rows_in += out.height
    return raw.filter(pl.col(LEFT_OUT).is_null()), unsold


def _count_mapped(raw: pl.DataFrame, good: pl.DataFrame, source: Input, tally: Tally) -> None:
    """Counts states, partners in linked files, and words for events that are read as ours."""
    for column in raw.columns:
        if (name := joined_name(column)) is not None:
            tally.joined[name] += raw.height
            tally.met[name] += int(raw[column].fill_null(False).sum())
    if source.event_words:
        words = raw[source.names[EVENT_TYPE]].cast(pl.String, strict=False).str.strip_chars()
        for word, count in words.drop_nulls().value_counts().iter_rows():
            if (ours := source.event_words.get(word.lower())) is not None:
                tally.understood[word, ours] += count
    if STATE in raw.columns:
        money = good[AMOUNT].fill_null(0.0) if AMOUNT in good.columns else pl.lit(0.0)
        states = raw.select(STATE, money.alias("money")).drop_nulls(STATE)
        for state, count, amount in states.group_by(STATE).agg(pl.len(), pl.col("money").sum()).iter_rows():
            tally.statuses[state] += count
            tally.status_money[state] += amount
        tally.no_status += int((raw[STATE].is_null() & (good[EVENT_TYPE] == ORDER)).sum())
        tally.check_statuses(source.names[STATUS])


def _made(
    raw: pl.DataFrame, made: Made, source: Input, rules: Rules, tally: Tally
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of events that a column of the usable rows tells of; what the rows' own cleaning counted is not counted twice."""
    some = raw.filter(made.where)
    mine = replace(
        source, expressions=made.expressions, names=made.names, made=(), event_words={}, reads=made.reads
    )
    counts = Tally()
    good, aside, _ = cleaned(some, mine, rules, counts)
    if made.kind == REFUND:
        good = good.filter(pl.col(AMOUNT) != 0).with_columns(-pl.col(AMOUNT).abs())
        tally.made_money[made.kind] += float(-good[AMOUNT].sum())
        tally.refunds_dated |= REFUND_TIME in source.names
    else:
        good = good.with_columns(pl.lit(True).alias(CLOCK))  # two equal answers are one
    tally.made[made.kind] += good.height + aside.height
    read = {theirs for ours, theirs in source.names.items() if ours not in MADE_FROM}
    tally.add_made(counts, set(made.names.values()) - read)
    return good, aside
