"""Reads times of any common form into UTC, and says of each whether it was a date, naive, or had an offset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from retinue.schema import UTC_TIME, InputError

# forms of a time; null means unreadable
DATE, NAIVE, OFFSET = 1, 2, 3
DAY_FIRST = r"^\s*(\d{1,2})(?:[/.\-](\d{1,2})[/.\-]\d{4}|[/.](\d{1,2})[/.]\d{2})(\D|$)"

TICKING = r"\d:\d\d|^\s*\d{9,19}(\.\d+)?\s*$"  # a time of day, or seconds since 1970
MIDNIGHT = r"(^|\D)(0?0:00(:00([.,]0+)?)?|12:00(:00)? ?[aA][mM])($|[^\d:])"

_CLOCK = (
    r"(?<H>\d{1,2}):(?<M>\d{2})(?::(?<S>\d{2})(?:[.,](?<f>\d{1,9}))?)?"
    r"(?:\s*(?<p>[AaPp])\.?[Mm]\.?)?"
    r"\s*(?<z>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?"
)
_ISO = (
    r"^(?<y>\d{4})[-/.](?<m>\d{1,2})[-/.](?<d>\d{1,2})"
    r"(?:[T ]+" + _CLOCK + ")?$"
)
_LOCAL = (
    r"^(?<a>\d{1,2})[/.\-](?<b>\d{1,2})(?:[/.\-](?<y>\d{4})|[/.](?<short>\d{2}))"
    r"(?:[T ,]+" + _CLOCK + ")?$"
)
_MONTH_FIRST = (
    r"^(?:[A-Za-z]{3,9},? +)?(?<mon>[A-Za-z]{3,9})\.? +(?<d>\d{1,2})(?:st|nd|rd|th)?,? +(?<y>\d{4})"
    r"(?:[T ,]+(?:at +)?" + _CLOCK + ")?$"
)
_DAY_MONTH = (
    r"^(?:[A-Za-z]{3,9},? +)?(?<d>\d{1,2})\.?(?:st|nd|rd|th)?[ \-]+(?<mon>[A-Za-z]{3,9})\.?[ ,\-]+(?<y>\d{4})"
    r"(?:[T ,]+(?:at +)?" + _CLOCK + ")?$"
)
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
EXCEL_DAY = r"^[2-7]\d{4}(\.\d+)?$"  # days since 30 December 1899: the years 1954 to 2119
_CLOCKS = (
    "%H",
    "%I",
    "%T",
    "%R",
    "%X",
    "%c",
    "%s",
    "%r",
    "%k",
    "%l",
)  # parts of a pattern that carry a time of day
_EPOCH_UNITS = ((9, 10, 1_000_000, 1), (12, 13, 1_000, 1), (15, 16, 1, 1), (18, 19, 1, 1_000))


_FIRST_DAY, _LAST_DAY = date(1678, 1, 1), date(9998, 12, 31)


def in_range(values: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """The dates or times of the years 1678 to 9998; null where another, which not every zone and library can hold."""
    day = values.to_physical()
    per_day = {"ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
    scale = per_day[dtype.time_unit] if isinstance(dtype, pl.Datetime) else 1
    low, high = ((end - date(1970, 1, 1)).days * scale for end in (_FIRST_DAY, _LAST_DAY))
    return pl.when(day.is_between(low, high)).then(values)


def zone_checked(zone: str, option: str) -> str:
    """Raises InputError where the zone has no such name."""
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InputError(
            f"{option}={zone}: there is no such zone. Give a name such as Europe/London."
        ) from error
    return zone


@dataclass
class Clock:
    """How the times of one group of tables are read.

    A date is a day of the shoppers: it becomes the first instant of that day in `local_zone`. A naive time with a clock
    is read in `zone`, but times that are midnight in the whole column are dates. `day_first` answers, once and for the
    whole column, whether 03/04/2024 is the third of April; `all_midnight` whether no time of the column has a clock.
    """

    zone: str
    local_zone: str
    form: str | None
    day_first: Callable[[], bool]
    all_midnight: Callable[[], bool] = lambda: False

    def read(self, values: pl.Series) -> pl.DataFrame:
        """Columns time (UTC, null = unreadable), form (DATE, NAIVE, OFFSET), clock (not at 0:00), shifted."""
        dtype = values.dtype
        if dtype == pl.Date:
            local = values.cast(pl.Datetime("us"))
            return self._placed(local, pl.Series("form", [DATE], dtype=pl.Int8).new_from_index(0, len(local)))
        if isinstance(dtype, pl.Datetime):
            form = pl.Series("form", [OFFSET if dtype.time_zone else NAIVE], dtype=pl.Int8)
            utc = values.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if dtype.time_zone else values
            return self._placed(utc.cast(pl.Datetime("us")), form.new_from_index(0, len(utc)))
        return self._read_distinct(as_text(values))

    def _read_distinct(self, texts: pl.Series) -> pl.DataFrame:
        texts = texts.alias("text")
        distinct = texts.unique()
        known = distinct.to_frame().hstack(self._read_texts(distinct.fill_null("").str.strip_chars()))
        return (
            texts.to_frame()
            .join(known, on="text", how="left", maintain_order="left", nulls_equal=True)
            .drop("text")
        )

    def _read_texts(self, texts: pl.Series) -> pl.DataFrame:
        if self.form is not None:
            return self._read_form(texts)
        parsed = _plain(texts)
        rest = parsed["form"].is_null() & (texts.str.len_bytes() > 0)
        if rest.any():
            other = self._read_odd(texts.filter(rest))
            position = rest.arg_true()
            parsed = pl.DataFrame(
                {name: parsed[name].scatter(position, other[name]) for name in ("local", "form")}
            )
        return self._placed(parsed["local"], parsed["form"])

    def _read_odd(self, texts: pl.Series) -> pl.DataFrame:
        digits = texts.str.replace(r"^(\d{8,19})\.0+$", "${1}")
        table = _from_digits(digits)
        for other in (_from_excel(texts), _from_parts(_groups(texts, _ISO)), *_named_months(texts)):
            table = table.select(pl.coalesce(name, other[name]).alias(name) for name in table.columns)
        if texts.str.contains(DAY_FIRST).any():
            parts = _groups(texts, _LOCAL)
            # two digits of a year as POSIX reads them: 69 to 99 lie before 2000
            century = pl.when(pl.col("short") >= "69").then(pl.lit("19")).otherwise(pl.lit("20"))
            parts = parts.with_columns(pl.coalesce("y", century + pl.col("short")).alias("y"))
            day, month = ("a", "b") if self.day_first() else ("b", "a")
            local = _from_parts(parts.rename({day: "d", month: "m"}))
            table = table.select(pl.coalesce(name, local[name]).alias(name) for name in table.columns)
        return table

    def _read_form(self, texts: pl.Series) -> pl.DataFrame:
        assert self.form is not None
        try:
            if "%z" in self.form:
                local = texts.str.to_datetime(self.form, time_unit="us", strict=False).dt.replace_time_zone(
                    None
                )
            elif any(mark in self.form for mark in _CLOCKS):
                local = texts.str.to_datetime(self.form, time_unit="us", strict=False)
            else:
                local = texts.str.to_date(self.form, strict=False).cast(pl.Datetime("us"))
        except pl.exceptions.PolarsError as error:
            raise InputError(
                f"data.time_format={self.form}: cannot be used ({error}). Example: '%d/%m/%Y %H:%M'."
            ) from error
        has_offset = "%z" in self.form or "%s" in self.form  # seconds since 1970 are counted in UTC
        form = OFFSET if has_offset else NAIVE if any(mark in self.form for mark in _CLOCKS) else DATE
        forms = pl.select(pl.when(local.is_not_null()).then(form).cast(pl.Int8)).to_series()
        return self._placed(local, forms)

    def _placed(self, local: pl.Series, form: pl.Series) -> pl.DataFrame:
        """Local times to UTC: the earlier of two readings in autumn, an hour later in the gap of spring."""
        naive = (form == NAIVE).fill_null(False)
        if naive.any() and _is_midnight(local.filter(naive)).all() and self.all_midnight():
            form = form.set(naive, DATE)
        table = pl.DataFrame({"local": local, "form": form})
        table = table.with_columns(in_range(pl.col("local"), pl.Datetime("us")))
        when = pl.col("local")

        def at(zone: str, moved: pl.Expr) -> pl.Expr:
            return moved.dt.replace_time_zone(
                zone, ambiguous="earliest", non_existent="null"
            ).dt.convert_time_zone("UTC")

        def in_zone(zone: str) -> pl.Expr:
            return pl.coalesce(at(zone, when), at(zone, when + pl.duration(hours=1)))

        is_date, is_naive, has_offset = (pl.col("form") == form for form in (DATE, NAIVE, OFFSET))
        utc = when.dt.replace_time_zone("UTC")
        time = (
            pl.when(is_date)
            .then(in_zone(self.local_zone))
            .when(is_naive)
            .then(in_zone(self.zone))
            .when(has_offset)
            .then(utc)
        ).cast(UTC_TIME)
        missing = at(self.zone, when).is_null() & is_naive & when.is_not_null()
        day_time = (
            pl.when(has_offset)
            .then(utc.dt.convert_time_zone(self.local_zone).dt.time())
            .otherwise(when.dt.time())
        )
        clock = ~is_date & (day_time.cast(pl.Int64) != 0)
        return table.select(
            time=time,
            form=pl.when(time.is_not_null()).then("form"),
            clock=clock.fill_null(False),
            shifted=missing.fill_null(False),
        )


def _is_midnight(local: pl.Series) -> pl.Series:
    return local.dt.cast_time_unit("us").to_physical() % 86_400_000_000 == 0


def as_text(values: pl.Series) -> pl.Series:
    """Values as stripped text: whole floats without their '.0', the rest as Polars writes them."""
    if values.dtype.is_float():
        whole = (values == values.round()) & (values.abs() < 2**53)
        return pl.select(
            pl.when(whole)
            .then(pl.when(whole).then(values).cast(pl.Int64).cast(pl.String))
            .otherwise(values.cast(pl.String))
        ).to_series()
    return values.cast(pl.String, strict=False)


def _plain(texts: pl.Series) -> pl.DataFrame:
    """The two forms nearly all files use, by their own fast parsers."""
    table = pl.DataFrame({"text": texts})
    text = pl.col("text")
    date = (
        pl.when(text.str.len_bytes() == 10)
        .then(text)
        .str.to_date("%Y-%m-%d", strict=False)
        .cast(pl.Datetime("us"))
    )
    long = pl.when(text.str.len_bytes() == 19).then(text.str.replace("T", " ", literal=True))
    stamp = long.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False)
    form = pl.when(date.is_not_null()).then(DATE).when(stamp.is_not_null()).then(NAIVE)
    return table.select(local=pl.coalesce(date, stamp), form=form.cast(pl.Int8))


def _from_digits(texts: pl.Series) -> pl.DataFrame:
    """YYYYMMDD, and seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their length."""
    table = pl.DataFrame({"text": texts})
    number = (
        pl.when(pl.col("text").str.contains(r"^\d{8,19}$")).then(pl.col("text")).cast(pl.Int64, strict=False)
    )
    size = pl.col("text").str.len_bytes()
    day = pl.when(size == 8).then(pl.col("text")).str.to_date("%Y%m%d", strict=False).cast(pl.Datetime("us"))
    seconds = (
        pl.when(pl.col("text").str.contains(r"^\d{9,10}\.\d+$"))
        .then(pl.col("text"))
        .cast(pl.Float64, strict=False)
    )
    epoch = (seconds * 1e6).round().cast(pl.Int64)
    for low, high, factor, divisor in _EPOCH_UNITS:
        epoch = pl.coalesce(epoch, pl.when(size.is_between(low, high)).then(number * factor // divisor))
    instant = epoch.cast(pl.Datetime("us"))
    form = pl.when(day.is_not_null()).then(DATE).when(instant.is_not_null()).then(OFFSET)
    return table.select(local=pl.coalesce(day, instant), form=form.cast(pl.Int8))


def _from_excel(texts: pl.Series) -> pl.DataFrame:
    """Days since 30 December 1899, a fraction being the time of day."""
    days = pl.when(pl.col("text").str.contains(EXCEL_DAY)).then(pl.col("text")).cast(pl.Float64, strict=False)
    since_1970 = ((days - 25_569) * 86_400).round().cast(pl.Int64) * 1_000_000
    form = pl.when(days.is_null()).then(None).when(days == days.floor()).then(DATE).otherwise(NAIVE)
    table = pl.DataFrame({"text": texts})
    return table.select(local=since_1970.cast(pl.Datetime("us")), form=form.cast(pl.Int8))


def _named_months(texts: pl.Series) -> list[pl.DataFrame]:
    """Jan 05 2024, 5 January 2024, 05-Jan-2024; English names."""
    if not texts.str.contains(r"[A-Za-z]{3}").any():
        return []
    number = pl.col("mon").str.to_lowercase().str.slice(0, 3)
    number = number.replace_strict(
        _MONTHS, [str(n) for n in range(1, 13)], default=None, return_dtype=pl.String
    )
    found = []
    for pattern in (_MONTH_FIRST, _DAY_MONTH):
        parts = _groups(texts, pattern).with_columns(number.alias("m"))
        # a month that is none would otherwise be read as the zeroth
        parts = parts.with_columns(pl.when(pl.col("m").is_not_null()).then(pl.col("y")).alias("y"))
        found.append(_from_parts(parts))
    return found


def _groups(texts: pl.Series, pattern: str) -> pl.DataFrame:
    return texts.str.extract_groups(pattern).struct.unnest()


def _from_parts(parts: pl.DataFrame) -> pl.DataFrame:
    """Datetime from the texts of year, month, day, hour, minute, second, fraction and offset."""
    hour, half = pl.col("H").cast(pl.Int64, strict=False), pl.col("p").str.to_lowercase()
    # 12 AM is midnight; 13 PM is none
    on_dial = pl.when(hour.is_between(1, 12)).then(hour % 12 + pl.when(half == "p").then(12).otherwise(0))
    parts = parts.with_columns(
        pl.when(half.is_null())
        .then(pl.col("H"))
        .otherwise(on_dial.cast(pl.String).fill_null("99"))
        .alias("H")
    )
    padded = [pl.col(name).fill_null("0").str.zfill(2) for name in ("m", "d", "H", "M", "S")]
    fraction = pl.col("f").fill_null("0").str.pad_end(6, "0").str.slice(0, 6)
    text = pl.format("{}-{}-{} {}:{}:{}.{}", pl.col("y"), *padded, fraction)
    local = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    zone = pl.col("z").str.replace(":", "", literal=True)
    sign = pl.when(zone.str.starts_with("-")).then(-1).otherwise(1)
    hours, minutes = (zone.str.slice(at, 2).cast(pl.Int64, strict=False).fill_null(0) for at in (1, 3))
    shifted = local - pl.duration(minutes=sign * (hours * 60 + minutes))
    stated = (
        pl.when(zone.is_not_null()).then(OFFSET).when(pl.col("H").is_not_null()).then(NAIVE).otherwise(DATE)
    )
    form = pl.when(local.is_not_null()).then(stated)
    return parts.select(
        local=pl.when(zone.is_not_null()).then(shifted).otherwise(local), form=form.cast(pl.Int8)
    )
