"""Events that a column of another event's row tells of: money given back, and consent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from retinue.events.rows import STATE, filled
from retinue.events.words import GIVEN, GIVEN_BACK, NO, WITHDRAWN, YES, plain, plain_column
from retinue.options import DataOptions
from retinue.schema import (
    AMOUNT,
    BASE,
    CONSENT_WORD,
    CURRENCY,
    CUSTOMER_ID,
    EVENT_TIME,
    EVENT_TYPE,
    KNOWN_TIME,
    LABELS,
    ORDER,
    ORDER_ID,
    REFUND,
    REFUND_TIME,
    REFUNDED_AMOUNT,
    STATUS,
)

# columns that are read for what they make alone
MADE_FROM = (STATUS, REFUNDED_AMOUNT, REFUND_TIME, CONSENT_WORD)
_SHARED = (CUSTOMER_ID, BASE, KNOWN_TIME)


@dataclass(frozen=True)
class Made:
    """Events beside those of the rows: which rows tell of one, and what it holds."""

    kind: str
    where: pl.Expr
    expressions: dict[str, pl.Expr]
    names: dict[str, str]
    reads: dict[str, str] = field(
        default_factory=dict
    )  # columns of ours whose numbers are written as another's


def made_from(
    expressions: dict[str, pl.Expr], names: dict[str, str], options: DataOptions
) -> tuple[Made, ...]:
    """What the mapped columns tell of beside the events of the rows themselves."""
    found: list[Made] = []
    is_order = expressions[EVENT_TYPE].cast(pl.String).str.strip_chars().str.to_lowercase() == ORDER
    if REFUNDED_AMOUNT in names:
        some = filled(expressions[REFUNDED_AMOUNT], options).is_not_null()
        found.append(_refund(expressions, names, REFUNDED_AMOUNT, is_order & some, options))
    elif STATUS in names and AMOUNT in names and not options.status_counts:
        back = pl.col(STATE).is_in(sorted(GIVEN_BACK))
        found.append(_refund(expressions, names, AMOUNT, is_order & back, options))
    if CONSENT_WORD in names:
        word = filled(expressions[CONSENT_WORD], options)
        kind = consent(word, options.consent_yes, options.consent_no)
        kept = [name for name in (*_SHARED, EVENT_TIME) if name in expressions]
        held = {str(name): expressions[name] for name in kept} | {str(EVENT_TYPE): kind}
        mine = {name: names[name] for name in held if name in names and name != EVENT_TYPE}
        found.append(Made("consent", kind.is_not_null(), held, mine))
    return tuple(found)


def _refund(
    expressions: dict[str, pl.Expr], names: dict[str, str], money: str, where: pl.Expr, options: DataOptions
) -> Made:
    kept = [n for n in (*_SHARED, EVENT_TIME, ORDER_ID, CURRENCY, *LABELS) if n in expressions]
    held = {str(name): expressions[name] for name in kept}
    held |= {str(AMOUNT): expressions[money], str(EVENT_TYPE): pl.lit(REFUND)}
    mine = {name: names[name] for name in held if name in names and name != EVENT_TYPE}
    mine[AMOUNT] = names[money]
    if REFUND_TIME in names:
        given = filled(expressions[REFUND_TIME], options).is_not_null()
        then, when = expressions[REFUND_TIME], expressions[EVENT_TIME]
        held[EVENT_TIME] = pl.when(given).then(then).otherwise(when)
        mine[EVENT_TIME] = names[REFUND_TIME]
        held.pop(KNOWN_TIME, None)
        mine.pop(KNOWN_TIME, None)
    return Made(REFUND, where, held, mine, {str(AMOUNT): str(money)})


def consent(text: pl.Expr, yes: Sequence[str], no: Sequence[str]) -> pl.Expr:
    """Words of consent as event types, the user's own before the known ones; unknown words are null."""
    word = plain_column(text)
    own_yes, own_no = [plain(one) for one in yes], [plain(one) for one in no]
    given = pl.when(word.is_in(own_yes)).then(pl.lit(GIVEN)).when(word.is_in(own_no)).then(pl.lit(WITHDRAWN))
    known = given.when(word.is_in(sorted(YES))).then(pl.lit(GIVEN))
    return known.when(word.is_in(sorted(NO))).then(pl.lit(WITHDRAWN))
