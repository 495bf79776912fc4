"""Raw rows to typed rows with a customer code, or to the quarantine with a reason; nothing is dropped."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl
import polars_hash as plh

from retinue.events.clock import EXCEL_DAY, Clock, as_text
from retinue.events.identity import made_alike
from retinue.events.made import consent
from retinue.events.numbers import CODES, Forms, currency_in, numbers
from retinue.events.reading import ROW_NUMBER
from retinue.events.sources import Input
from retinue.events.tally import Tally, examples_where
from retinue.events.text_files import PROBLEM
from retinue.events.timeline import lies_after
from retinue.options import IdRule
from retinue.schema import (
    AMOUNT,
    BASE,
    CONSENT_WORD,
    COST,
    CURRENCY,
    CUSTOMER,
    CUSTOMER_ID,
    DISCOUNT,
    EVENT_TIME,
    EVENT_TYPE,
    FILE,
    KNOWN_EVENT_TYPES,
    KNOWN_TIME,
    LABELS,
    NUMBERS,
    ORDER,
    ORDER_ID,
    QUANTITY,
    RATING,
    REASON,
    REFUND,
    ROW,
    SENTIMENT,
    SEVERITY,
    VALUES,
    Column,
)

# two independent 64-bit hashes of the whole raw row: equal in both means equal in every input column
SAME_A, SAME_B = "__same_a__", "__same_b__"
FUTURE = "in the future"
CLOCK = "__clock__"  # whether the row itself carries a time of day
_MASK = 2**63 - 1
# a card number has 16 digits, a price in the smallest currency unit at most 13
_RANGES = {
    AMOUNT: (-1e13, 1e13),
    DISCOUNT: (-1e13, 1e13),
    COST: (-1e13, 1e13),
    QUANTITY: (-1e13, 1e13),
    SEVERITY: (0.0, 1.0),
    SENTIMENT: (-1.0, 1.0),
    RATING: (1.0, 5.0),
}
_KEY = "__key__"


@dataclass(frozen=True)
class Rules:
    """What cleaning needs to know beside the rows; `latest` is the last instant an event may have."""

    base: str
    event_type: str
    null_values: tuple[str, ...]
    latest: datetime
    latest_reason: str
    clocks: dict[str, Clock]
    forms: dict[str, Forms]
    consent_yes: tuple[str, ...] = ()
    consent_no: tuple[str, ...] = ()
    id_rules: tuple[IdRule, ...] = ()
    guest_ids: tuple[str, ...] = ()
    secret: bytes | None = field(default=None, repr=False)


def customer_code(frame: pl.DataFrame) -> pl.Series:
    """63-bit code of (base, customer_id): xxHash64, seed 0, of base + U+001F + id, without the top bit."""
    keys = frame.select(pl.concat_str([BASE, CUSTOMER_ID], separator="\x1f").alias(_KEY))
    code = plh.col(_KEY).nchash.xxhash64(seed=0) & pl.lit(_MASK, pl.UInt64)
    return keys.select(code.cast(pl.Int64).alias(CUSTOMER)).to_series()


def pseudonyms(ids: pl.Series, secret: bytes) -> pl.Series:
    """Keyed BLAKE2b (128 bits, hex) of each id; null stays null."""
    key = secret if len(secret) <= hashlib.blake2b.MAX_KEY_SIZE else hashlib.blake2b(secret).digest()
    known = ids.drop_nulls().unique()
    hidden = [hashlib.blake2b(text.encode(), key=key, digest_size=16).hexdigest() for text in known.to_list()]
    return ids.replace_strict(known, pl.Series(hidden, dtype=pl.String), default=None, return_dtype=pl.String)


def cleaned(
    raw: pl.DataFrame, source: Input, rules: Rules, tally: Tally
) -> tuple[pl.DataFrame, pl.DataFrame, pl.Series]:
    """Usable rows, quarantine rows, and which rows of the batch are usable."""
    file = source.table.label
    tally.rows_in += raw.height
    shaped = raw.select(pl.col(ROW_NUMBER), **source.expressions)
    for name in set(source.names.values()):
        tally.rows_of[name] += raw.height
    ids = _ids(shaped, rules, tally, file)
    _check_consents(shaped, source, rules, tally)
    table = pl.DataFrame({ROW_NUMBER: shaped[ROW_NUMBER], CUSTOMER_ID: ids})
    table = table.with_columns(_base(shaped, rules), _types(shaped, rules))
    reasons = _guests(shaped, rules)
    reasons += [pl.when(pl.col(CUSTOMER_ID).is_null()).then(pl.lit("no customer id"))]
    reasons.append(pl.when(pl.col(EVENT_TYPE).is_null()).then(pl.lit("no event type")))
    table = _times(table, shaped, source, rules, tally)
    reasons.append(pl.when(pl.col(EVENT_TIME).is_null()).then(pl.lit("unreadable time")))
    reasons.append(pl.when(pl.col("__bad_known__")).then(pl.lit("unreadable known time")))
    for column in NUMBERS:
        if column in shaped.columns:
            table, found = _number(table, shaped[column], column, source, rules, tally)
            reasons += found
    reasons.append(pl.when(lies_after(rules.latest)).then(pl.lit(rules.latest_reason)))
    labels = [
        _text(shaped[column], rules).alias(column)
        for column in (ORDER_ID, *LABELS)
        if column in shaped.columns
    ]
    table = table.with_columns(labels).with_columns(pl.coalesce(reasons).alias(REASON))
    good, aside = _split(raw, table, shaped, source, rules, tally)
    return good, aside, table[REASON].is_null()


def _check_consents(shaped: pl.DataFrame, source: Input, rules: Rules, tally: Tally) -> None:
    """Counts words of consent that mean neither yes nor no."""
    if CONSENT_WORD not in shaped.columns:
        return
    text = _text(shaped[CONSENT_WORD], rules)
    known = shaped.select(consent(pl.lit(text), rules.consent_yes, rules.consent_no)).to_series()
    bad = text.is_not_null() & known.is_null()
    name = source.names[CONSENT_WORD]
    examples_where(shaped, bad, text, tally.bad_consents[name], source.table.label, ROW_NUMBER)


def without_broken(
    raw: pl.DataFrame, source: Input, tally: Tally, hidden: bool = False
) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """The rows that were read, and those whose line does not fit the header, as quarantine rows; masked where hidden."""
    if PROBLEM not in raw.columns:
        return raw, None
    broken = raw.filter(pl.col(PROBLEM).is_not_null())
    raw = raw.filter(pl.col(PROBLEM).is_null()).drop(PROBLEM)
    lines, numbers = broken[source.table.columns[0]], broken[ROW_NUMBER]
    tally.broken_lines.add(lines, numbers, source.table.label)
    reasons = ("line: " + broken[PROBLEM]).alias(REASON)
    tally.rows_in += broken.height
    tally.quarantined += broken.height
    for reason, count in reasons.value_counts().iter_rows():
        tally.reasons[reason] += count
    return raw, pl.DataFrame(
        {
            FILE: pl.Series([source.table.label], dtype=pl.String).new_from_index(0, broken.height),
            ROW: numbers.cast(pl.Int64),
            REASON: reasons,
            VALUES: broken.select(
                pl.struct((_masked(lines) if hidden else lines).alias("line")).struct.json_encode()
            ).to_series(),
        }
    )


def _split(
    raw: pl.DataFrame, table: pl.DataFrame, shaped: pl.DataFrame, source: Input, rules: Rules, tally: Tally
) -> tuple[pl.DataFrame, pl.DataFrame]:
    bad = table[REASON].is_not_null()
    columns = sorted(source.table.columns)
    hashes = raw.select(columns)
    table = table.with_columns(
        hashes.hash_rows(seed=1).alias(SAME_A),
        hashes.hash_rows(seed=2, seed_1=3, seed_2=5, seed_3=7).alias(SAME_B),
    )
    if rules.latest_reason == FUTURE:
        later = table.filter(pl.col(REASON) == FUTURE)
        tally.add_future(later[EVENT_TIME], later[ROW_NUMBER], source.table.label)
    good = table.filter(~bad)
    _count(good, tally, source.table.label)
    if CURRENCY in shaped.columns:
        seen = table.select(
            BASE, pl.Series(CURRENCY, _text(shaped[CURRENCY], rules).str.to_uppercase())
        ).filter(~bad)
        for base, name, count in seen.drop_nulls().group_by(BASE, CURRENCY).len().iter_rows():
            tally.currencies[base][name] += count
    negative = (
        (pl.col(EVENT_TYPE) == ORDER) & (pl.col(AMOUNT) < 0) if AMOUNT in good.columns else pl.lit(False)
    )
    kind = pl.when(negative).then(pl.lit(REFUND)).otherwise(pl.col(EVENT_TYPE))
    good = good.with_columns(kind.alias(EVENT_TYPE), customer_code(good))
    if AMOUNT in good.columns:
        # money back is money back, whatever its sign; of nothing too, as the negative of zero is another zero
        positive = (pl.col(EVENT_TYPE) == REFUND) & (pl.col(AMOUNT) > 0)
        back = pl.when(positive).then(-pl.col(AMOUNT)).otherwise(AMOUNT)
        good = good.with_columns(back.alias(AMOUNT))
    for kind_name, count in good.group_by(EVENT_TYPE).len().iter_rows():
        tally.types[kind_name] += count
    good = good.drop(ROW_NUMBER, REASON, "__bad_known__")
    return good, _quarantined(raw, table, bad, source, rules, tally)


def _quarantined(
    raw: pl.DataFrame, table: pl.DataFrame, bad: pl.Series, source: Input, rules: Rules, tally: Tally
) -> pl.DataFrame:
    kept = raw.filter(bad).select(source.table.columns)
    flat = kept.select(
        pl.col(name) if dtype.is_nested() else pl.col(name).cast(pl.String, strict=False)
        for name, dtype in kept.schema.items()
    )
    if rules.secret is not None:
        # a column that is not mapped may hold a name or an address, and so may a bad cell of one that is
        mapped = sorted(set(source.names.values()))
        flat = flat.select(
            _masked(flat[name]) if flat.schema[name] == pl.String else flat[name] for name in mapped
        )
        flat = flat.with_columns(table[CUSTOMER_ID].filter(bad).alias(source.names[CUSTOMER_ID]))
    reasons = table[REASON].filter(bad)
    tally.quarantined += kept.height
    for reason, count in reasons.value_counts().iter_rows():
        tally.reasons[reason] += count
    if AMOUNT in table.columns and kept.height:
        lost = table.filter(bad).group_by(REASON).agg(pl.col(AMOUNT).abs().sum())
        for reason, money in lost.iter_rows():
            tally.reason_money[reason] += money if math.isfinite(money) else 0.0
    return pl.DataFrame(
        {
            FILE: pl.Series([source.table.label], dtype=pl.String).new_from_index(0, kept.height),
            ROW: table[ROW_NUMBER].filter(bad).cast(pl.Int64),
            REASON: reasons,
            VALUES: flat.select(pl.struct(pl.all()).struct.json_encode()).to_series(),
        }
    )


def _masked(values: pl.Series) -> pl.Series:
    """The form of each cell without its content: letters as x, digits as 9."""
    return values.str.replace_all(r"\p{L}", "x").str.replace_all(r"\p{N}", "9")


def _count(good: pl.DataFrame, tally: Tally, file: str) -> None:
    tally.span(good[EVENT_TIME])
    for column in good.columns:
        tally.filled[column] += good.height - good[column].null_count()
    for kind in good.filter(pl.col(CLOCK))[EVENT_TYPE].unique():
        tally.clock_types.add(kind)
    if AMOUNT in good.columns:
        orders = good.filter(pl.col(EVENT_TYPE) == ORDER)
        below = orders.filter(pl.col(AMOUNT) < 0)
        tally.negative_orders.add(below[AMOUNT], below[ROW_NUMBER], file)
        back = good.filter(pl.col(EVENT_TYPE) == REFUND, pl.col(AMOUNT) > 0)
        tally.positive_refunds.add(back[AMOUNT], back[ROW_NUMBER], file)
        tally.order_money += float(orders[AMOUNT].abs().sum())


def _currencies_in(table: pl.DataFrame, text: pl.Series, read: pl.Series, tally: Tally) -> None:
    """Counts the currency signs and codes that stand beside numbers."""
    odd = text.cast(pl.Float64, strict=False).is_null() & text.is_not_null()
    if not odd.any():
        return
    seen = pl.DataFrame({BASE: table[BASE].filter(read).filter(odd), "text": text.filter(odd)})
    named = seen.with_columns(currency_in(pl.col("text")).replace(CODES).alias(CURRENCY)).drop_nulls()
    for base, name, count in named.group_by(BASE, CURRENCY).len().iter_rows():
        tally.currencies[base][name] += count


def _text(values: pl.Series, rules: Rules) -> pl.Series:
    """Stripped text; what the user calls unknown is null."""
    text = as_text(values).str.strip_chars()
    return text.set(text.is_in([*rules.null_values, ""]).fill_null(False), None)


def _ids(shaped: pl.DataFrame, rules: Rules, tally: Tally, file: str) -> pl.Series:
    text = _text(shaped[CUSTOMER_ID], rules)
    if rules.id_rules:
        alike = made_alike(text, rules.id_rules)
        examples_where(shaped, (alike != text).fill_null(False), text, tally.normalised, file, ROW_NUMBER)
        text = alike
    trimmed = text.str.replace(r"^(\d+)\.0+$", "${1}")
    examples_where(shaped, (trimmed != text).fill_null(False), text, tally.trimmed_ids, file, ROW_NUMBER)
    numeric = trimmed.str.contains(r"^\d+$").fill_null(True)
    tally.number_ids += len(text) - text.null_count() - int((~numeric).sum())
    examples_where(shaped, ~numeric, trimmed, tally.text_ids, file, ROW_NUMBER)
    if rules.secret is not None:
        trimmed = pseudonyms(trimmed, rules.secret)
        tally.text_ids.value = tally.trimmed_ids.value = tally.normalised.value = ""
    return trimmed.alias(CUSTOMER_ID)


def _guests(shaped: pl.DataFrame, rules: Rules) -> list[pl.Expr]:
    """The reason of rows whose id stands for everybody without an account."""
    if not rules.guest_ids:
        return []
    ids = _text(shaped[CUSTOMER_ID], rules).str.replace(r"^(\d+)\.0+$", "${1}")
    guests = ids.is_in(list(rules.guest_ids)).fill_null(False)
    return [pl.when(pl.lit(guests)).then(pl.lit("a guest (data.guest_ids)"))]


def _base(shaped: pl.DataFrame, rules: Rules) -> pl.Series | pl.Expr:
    if BASE in shaped.columns:
        return _text(shaped[BASE], rules).fill_null(rules.base).alias(BASE)
    return pl.lit(rules.base).alias(BASE)


def _types(shaped: pl.DataFrame, rules: Rules) -> pl.Series:
    text = _text(shaped[EVENT_TYPE], rules)
    low = text.str.to_lowercase()
    return low.zip_with(low.is_in(KNOWN_EVENT_TYPES).fill_null(False), text).alias(EVENT_TYPE)


def _times(
    table: pl.DataFrame, shaped: pl.DataFrame, source: Input, rules: Rules, tally: Tally
) -> pl.DataFrame:
    read = _read_times(shaped, EVENT_TIME, source, rules, tally)
    table = table.with_columns(read["time"].alias(EVENT_TIME), read["clock"].alias(CLOCK))
    if KNOWN_TIME not in shaped.columns:
        return table.with_columns(pl.col(EVENT_TIME).alias(KNOWN_TIME), pl.lit(False).alias("__bad_known__"))
    known = _read_times(shaped, KNOWN_TIME, source, rules, tally)["time"]
    given = _given(shaped[KNOWN_TIME], rules)
    return table.with_columns(
        known.fill_null(table[EVENT_TIME]).alias(KNOWN_TIME), (given & known.is_null()).alias("__bad_known__")
    )


def _given(values: pl.Series, rules: Rules) -> pl.Series:
    return (_text(values, rules) if values.dtype == pl.String else values).is_not_null()


def _read_times(shaped: pl.DataFrame, column: str, source: Input, rules: Rules, tally: Tally) -> pl.DataFrame:
    raw, name, file = shaped[column], source.names[column], source.table.label
    read = rules.clocks[source.group].read(_text(raw, rules) if raw.dtype == pl.String else raw)
    bad = read["time"].is_null()
    if column == KNOWN_TIME:
        bad &= _given(raw, rules)
    if bad.any():
        tally.bad_times[name].add(raw.filter(bad), shaped[ROW_NUMBER].filter(bad), file)
    forms = tally.forms.setdefault((source.group, name), {})
    for form in read["form"].drop_nulls().unique().to_list():
        same = (read["form"] == form).fill_null(False)
        example = forms.setdefault(form, type(tally.shifted)())
        example.add(raw.filter(same), shaped[ROW_NUMBER].filter(same), file)
        if form == 2:
            tally.naive[name].add(raw.filter(same), shaped[ROW_NUMBER].filter(same), file)
    examples_where(shaped, read["shifted"], raw, tally.shifted, file, ROW_NUMBER)
    excel = as_text(raw).str.contains(EXCEL_DAY).fill_null(False) & read["time"].is_not_null()
    examples_where(shaped, excel, raw, tally.excel_days, file, ROW_NUMBER)
    return read


def _number(
    table: pl.DataFrame, raw: pl.Series, column: Column, source: Input, rules: Rules, tally: Tally
) -> tuple[pl.DataFrame, list[pl.Expr]]:
    """The column as Float64, and the reasons it gives for quarantine; counts what does not parse."""
    text = _text(raw, rules) if not raw.dtype.is_numeric() else raw
    if text.dtype == pl.String:
        form = rules.forms[source.group].of(source.reads.get(column, column), text)
        value = numbers(text, form)
        if form.found:
            tally.number_forms[source.names.get(column, column)] = form.found
        if column == AMOUNT and CURRENCY not in source.expressions:
            _currencies_in(table, text.filter(value.is_not_null()), value.is_not_null(), tally)
    else:
        value = text.cast(pl.Float64, strict=False)
    if raw.dtype.is_float():
        value = value.fill_nan(None)
    bad = (
        (value.is_null() & text.is_not_null())
        if not raw.dtype.is_float()
        else pl.repeat(False, len(raw), eager=True)
    )
    bad |= ~value.is_finite().fill_null(True)
    name, file = source.names.get(column, column), source.table.label
    if bad.any():
        tally.bad_numbers[name].add(raw.filter(bad), table[ROW_NUMBER].filter(bad), file)
    reasons: list[pl.Expr] = [pl.when(bad).then(pl.lit(f"non-numeric {column}"))]
    if column in _RANGES:
        low, high = _RANGES[column]
        outside = (~value.is_between(low, high)).fill_null(False) & ~bad
        if outside.any():
            tally.impossible[name].add(raw.filter(outside), table[ROW_NUMBER].filter(outside), file)
        reasons.append(
            pl.when(outside).then(pl.lit(f"impossible value: {column} outside {low:g} to {high:g}"))
        )
    if column == DISCOUNT:
        tally.negative_discounts += int((value < 0).sum())
        value = value.abs()
    # adding 0.0 turns a negative zero into zero, which would otherwise sort and hash apart
    return table.with_columns((value + 0.0).alias(column)), reasons
