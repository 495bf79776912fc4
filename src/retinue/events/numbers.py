"""Reads numbers as people write them: decimal comma or point, thousands, currency signs, negatives of accountants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from retinue.schema import InputError, shown

CODES = {"€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR", "₺": "TRY", "₩": "KRW", "zł": "PLN"}
SIGNS = {"point": ".", "comma": ",", "space": " ", "apostrophe": "'", "none": ""}
_CURRENCY = r"(?:[A-Z]{3}|[A-Z]{0,2}\p{Sc}|kr\.?|zł|Fr\.)"
_SPACES = "[\u00a0\u202f\u2009 ]"
# what a bare number (no sign, no currency) proves of its column, and what it leaves open
_PROOFS = {
    ".": r"^\d*\.(\d{1,2}|\d{4,})$|^\d{4,}\.\d{3}$|^0?\.\d{3}$|^\d{1,3}(,\d{3}){2,}$|^\d{1,3}(,\d{3})+\.\d+$",
    ",": r"^\d*,(\d{1,2}|\d{4,})$|^\d{4,},\d{3}$|^0?,\d{3}$|^\d{1,3}(\.\d{3}){2,}$|^\d{1,3}(\.\d{3})+,\d+$",
}
_OPEN = {".": r"^[1-9]\d{0,2}\.\d{3}$", ",": r"^[1-9]\d{0,2},\d{3}$"}


@dataclass(frozen=True)
class NumberForm:
    """How the numbers of a column are written; `found` says it in words where it was found and is not the plain form."""

    decimal: str = "."
    thousands: str = ","
    found: str = ""


PLAIN_FORM = NumberForm()


def sign_of(word: str | None, option: str) -> str | None:
    """The character that an option names, by itself or as a word.

    Raises:
        InputError: neither.
    """
    if word is None or word in SIGNS.values():
        return word
    if word not in SIGNS:
        raise InputError(f"{option}={shown(word)}: must be one of {', '.join(SIGNS)}.")
    return SIGNS[word]


def form_of(decimal: str | None, thousands: str | None) -> NumberForm | None:
    """The form that data.decimal and data.thousands give; None where neither is given."""
    point, group = sign_of(decimal, "data.decimal"), sign_of(thousands, "data.thousands")
    if point is None and group is None:
        return None
    if point is None:
        point = "," if group == "." else "."
    if group is None:
        group = "." if point == "," else ","
    if point not in (".", ",") or point == group:
        raise InputError(
            f"data.decimal={decimal}, data.thousands={thousands}: give data.decimal=point or comma, and another sign as "
            "data.thousands."
        )
    return NumberForm(point, group)


def bare(text: pl.Expr) -> pl.Expr:
    """The number without sign, currency, spaces and apostrophes."""
    stripped = text.str.replace_all("\u2212", "-", literal=True).str.strip_chars()
    stripped = (
        stripped.str.replace(r"^\((.*)\)$", "${1}").str.replace(r"^[+-]\s*", "").str.replace(r"\s*-$", "")
    )
    stripped = stripped.str.replace(rf"^{_CURRENCY}\s*", "").str.replace(rf"\s*{_CURRENCY}$", "")
    stripped = stripped.str.replace(r"^[+-]\s*", "").str.replace(r"\s*-$", "")
    return stripped.str.replace_all(rf"(\d)(?:{_SPACES}|['’])(\d{{3}})", "${1}${2}").str.replace_all(
        rf"(\d)(?:{_SPACES}|['’])(\d{{3}})", "${1}${2}"
    )


def currency_in(text: pl.Expr) -> pl.Expr:
    """The currency sign or code that stands in the cell beside a number."""
    found = text.str.extract(rf"^[(+-]?\s*({_CURRENCY})\s*[(+-]?[\d.,]", 1)
    return pl.coalesce(found, text.str.extract(rf"\d\s*-?\s*({_CURRENCY})\s*[)-]?$", 1))


def is_doubtful(text: pl.Series) -> bool:
    """Whether some cell is no plain number, or one that a thousands point would make another."""
    plain = text.cast(pl.Float64, strict=False)
    return bool((plain.is_null() & text.is_not_null()).any() or text.str.contains(_OPEN["."]).any())


def evidence(text: pl.Expr) -> list[pl.Expr]:
    """Counts over a column: proofs and open cases of the decimal point, then of the comma; and an open example."""
    number = bare(text)
    counts = [number.str.contains(kind[sign]).sum() for sign in ".," for kind in (_PROOFS, _OPEN)]
    is_open = number.str.contains(_OPEN["."]) | number.str.contains(_OPEN[","])
    return [
        *(count.alias(f"n{place}") for place, count in enumerate(counts)),
        text.filter(is_open).first().alias("open"),
    ]


def decide(counts: tuple[int, int, int, int], example: str, where: str, separator: str | None) -> NumberForm:
    """The one form that fits a whole column.

    Args:
        counts: proofs and open cases of the point, then of the comma.
        example: an open case.
        where: file and column, for the message.
        separator: of the file's fields: where it is a semicolon, the comma may be the decimal sign.

    Raises:
        InputError: two forms fit.
    """
    point, open_point, comma, open_comma = counts
    if comma > point:
        return NumberForm(",", ".", "decimal comma")
    if point:
        return PLAIN_FORM
    if open_comma or (open_point and separator == ";"):
        sign, whole = (",", "comma") if open_comma else (".", "point")
        other = {"comma": "point", "point": "comma"}[whole]
        number = example.strip()
        raise InputError(
            f"{where} has numbers such as '{shown(number)}': the '{sign}' may part thousands or begin decimals, and no cell "
            f"tells. Set data.decimal={other} where it parts thousands, or data.decimal={whole} where it begins decimals."
        )
    return PLAIN_FORM


def numbers(text: pl.Series, form: NumberForm) -> pl.Series:
    """The cells as Float64; null where a cell is no number in this form."""
    plain = text.cast(pl.Float64, strict=False)
    if form.decimal == "." and (plain.is_not_null() | text.is_null()).all():
        return plain
    table = pl.DataFrame({"text": text, "plain": plain})
    cell = pl.col("text")
    number = bare(cell)
    decimal, group = (f"\\{sign}" if sign else "" for sign in (form.decimal, form.thousands))
    in_groups = rf"\d{{1,3}}(?:{group}\d{{3}})+" if group else r"\d+"
    fits = number.str.contains(
        rf"^(?:\d+|{in_groups})?(?:{decimal}\d*)?(?:[eE][+-]?\d+)?$"
    ) & number.str.contains(r"\d")
    plain_text = number.str.replace_all(form.thousands, "", literal=True) if form.thousands else number
    size = plain_text.str.replace(form.decimal, ".", literal=True).cast(pl.Float64, strict=False)
    minus = cell.str.replace_all("\u2212", "-", literal=True).str.strip_chars()
    is_below = minus.str.contains(rf"^\(.*\)$|^-|-$|^{_CURRENCY}\s*-|-\s*{_CURRENCY}$")
    read: pl.Expr = pl.when(fits).then(pl.when(is_below).then(-size).otherwise(size))
    if form.decimal == ".":
        read = pl.coalesce("plain", read)
    return table.select(read.alias("read")).to_series()


class Forms:
    """The form of each number column of a group of tables, asked of the whole column once and only where needed."""

    def __init__(self, given: NumberForm | None, ask: Callable[[str], NumberForm]) -> None:
        self._given, self._ask = given, ask
        self._known: dict[str, NumberForm] = {}

    def of(self, column: str, text: pl.Series) -> NumberForm:
        """The form of a column of ours, some cells of which are these."""
        if self._given is not None:
            return self._given
        if column not in self._known:
            if not is_doubtful(text):
                return PLAIN_FORM
            self._known[column] = self._ask(column)
        return self._known[column]
