"""Numbers as readers say them: money, counts, shares, days and dates."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import TypeGuard
from zoneinfo import ZoneInfo

_SIGNS = {"USD": "$", "GBP": "£", "EUR": "€", "JPY": "¥", "INR": "₹"}
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_MODELS = {
    "own_rate": "Own rate",
    "bg_nbd": "BG/NBD",
    "mbg_nbd": "MBG/NBD",
    "pareto_nbd": "Pareto/NBD",
    "zero_shot": "Base model",
    "xgboost": "XGBoost",
    "blend": "Blend",
}
NONE = "–"
MINUS = "\N{MINUS SIGN}"


def is_number(value: object) -> TypeGuard[float]:
    """Whether a finite number stands there."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def count(value: float | None) -> str:
    """Whole number with thousands separators."""
    return NONE if value is None or not math.isfinite(value) else _signed(value, f"{abs(value):,.0f}")


def number(value: float | None, digits: int = 2) -> str:
    """Number with thousands separators and a fixed number of decimals."""
    return NONE if value is None or not math.isfinite(value) else _signed(value, f"{abs(value):,.{digits}f}")


def share(value: float | None, digits: int | None = None) -> str:
    """A share of 1 as percent; small shares keep a decimal, so that few never reads as none."""
    if value is None or not math.isfinite(value):
        return NONE
    percent = abs(value) * 100
    if digits is None:
        digits = 1 if percent < 9.95 or 99 < percent < 100 else 0
    if 0 < percent < 0.05:
        return "<0.1%" if value > 0 else f"{MINUS}<0.1%"
    return _signed(value, f"{percent:.{digits}f}%")


def days(value: float | None) -> str:
    """Whole days, or the dash where there are none."""
    return NONE if value is None or not math.isfinite(value) else f"{count(value)}\N{NO-BREAK SPACE}days"


def day(moment: datetime | date, zone: str = "UTC") -> str:
    """Calendar day in a zone, e.g. 30 Sep 1997."""
    local = moment.astimezone(ZoneInfo(zone)) if isinstance(moment, datetime) and moment.tzinfo else moment
    return f"{local.day}\N{NO-BREAK SPACE}{_MONTHS[local.month - 1]}\N{NO-BREAK SPACE}{local.year}"


def month(first: date) -> str:
    """Calendar month, e.g. Sep 1997."""
    return f"{_MONTHS[first.month - 1]} {first.year}"


def plural(value: float, word: str) -> str:
    """Count with its noun: 1 customer, 2 customers."""
    return f"{count(value)} {word}{'' if round(value) == 1 else 's'}"


def model_name(rung: str) -> str:
    """A model by the name that the literature gives it."""
    return _MODELS.get(rung, rung)


def _signed(value: float, text: str) -> str:
    shows_something = any(digit in text for digit in "123456789")
    return MINUS + text if value < 0 and shows_something else text


@dataclass(frozen=True)
class Money:
    """Amounts of one account currency; without a code the numbers stand alone."""

    currency: str = ""

    @property
    def code(self) -> str:
        """The currency as given, less anything that has no place in a code: it goes into hover boxes."""
        return re.sub(r"[^\w$€£¥₹. ]", "", self.currency)[:12]

    @property
    def unit(self) -> str:
        """The code, or the words for an unnamed currency, for axis titles."""
        return self.code or "account currency"

    def full(self, value: float | None) -> str:
        """Every unit shown; cents only below 100."""
        if value is None or not math.isfinite(value):
            return NONE
        digits = 2 if 0 < abs(value) < 99.995 else 0
        return self._with_sign(value, f"{abs(value):,.{digits}f}")

    def short(self, value: float | None) -> str:
        """For headlines: millions as M and billions as bn, else as `full`."""
        if value is None or not math.isfinite(value):
            return NONE
        for size, word in ((1e9, "bn"), (1e6, "M")):
            if abs(value) >= size * 0.9995:
                return self._with_sign(value, f"{abs(value) / size:,.2f}{word}")
        return self.full(value)

    def edge(self, value: float) -> str:
        """For band labels: no needless decimals, thousands as k, millions as M."""
        for size, word in ((1e9, "bn"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= size:
                return self._with_sign(value, f"{abs(value) / size:g}{word}")
        return self._with_sign(value, f"{abs(value):g}")

    def _with_sign(self, value: float, text: str) -> str:
        sign = _SIGNS.get(self.code, f"{self.code}\N{NO-BREAK SPACE}" if self.code else "")
        return _signed(value, sign + text)
