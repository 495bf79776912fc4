"""Customer ids made alike, on request, where one person goes by several ways of writing one id."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from retinue.options import IdRule

# blanks that no one sees, which files carry from web pages and spreadsheets
_UNSEEN = r"[\u200B-\u200D\u2060\uFEFF\u00AD]"


def made_alike(ids: pl.Series, rules: Sequence[IdRule]) -> pl.Series:
    """The ids by the rules, always in the order nfc, trim, casefold, integer; an id that is left empty is unknown."""
    text = pl.col("id")
    if IdRule.nfc in rules:
        text = text.str.normalize("NFC")
    if IdRule.trim in rules:
        text = text.str.replace_all(_UNSEEN, "").str.replace_all(r"\s+", " ").str.strip_chars()
    made = pl.DataFrame({"id": ids}).select(text).to_series()
    if IdRule.casefold in rules:
        made = _casefolded(made)
    if IdRule.integer in rules:
        made = made.str.replace(r"^0*(\d+)(?:\.0+)?$", "${1}")
    return made.set((made == "").fill_null(False), None)


def _casefolded(ids: pl.Series) -> pl.Series:
    """Small letters; beyond ASCII as Unicode folds them (ß is ss)."""
    low = ids.str.to_lowercase()
    odd = ids.filter(ids.str.contains(r"[^\x00-\x7F]").fill_null(False)).unique()
    if odd.is_empty():
        return low
    folded = pl.Series([text.casefold() for text in odd.to_list()], dtype=pl.String)
    return pl.select(pl.lit(ids).replace_strict(odd, folded, default=low, return_dtype=pl.String)).to_series()
