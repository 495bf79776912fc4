"""Audience files for activation: who gets what, per channel; only what changed since the last export, where asked."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from retinue.decisions.decide import NOTHING, UNKNOWN_CONSENT
from retinue.events.store import write_table, write_text, written_whole
from retinue.options import ExportOptions
from retinue.schema import (
    ACTION,
    ACTION_CHANNEL,
    CONSENT,
    CUSTOMER_ID,
    CUTOFF,
    DECISIONS,
    EVIDENCE,
    EXPORT_CHANGE,
    EXPORTS,
    NAMED_CAUSE,
    POLICY,
    InputError,
)

STATE = "exported.parquet"
LOG = "log"
DELTA = "-changes"
RESERVED = ("exported", "exports", LOG)
# = + - @ and their full-width forms, also behind blanks, and a leading tab or line end
RUN_BY_SPREADSHEETS = r"^\s*[=+\-@\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}]|^[\t\r\n]"
ADDED, CHANGED, REMOVED, ALL = "added", "changed", "removed", "all"


@dataclass(frozen=True)
class Exported:
    """What was written: rows by channel, and files."""

    rows: dict[str, int]
    files: tuple[Path, ...]


def audiences(decisions: pl.DataFrame, last: pl.DataFrame | None = None) -> pl.DataFrame:
    """The `exports` table: every customer with an action; with `last`, only what is other than there.

    A customer whose action ended stands as removed, under the channel of the last export, so that a running campaign
    can be stopped. Whoever withdrew consent is never in it but as removed.

    Args:
        decisions: with actions.
        last: the `exports` table of everything that was exported before; None exports all.
    """
    told = decisions.filter((pl.col(ACTION) != NOTHING) & (pl.col(CONSENT) != "withdrawn"))
    absent = [
        pl.lit(None, pl.String).alias(name) for name in (NAMED_CAUSE, EVIDENCE) if name not in told.columns
    ]
    told = (
        told.with_columns(absent)
        .with_columns(pl.lit(ALL).alias(EXPORT_CHANGE))
        .select(EXPORTS.schema.names())
    )
    if last is not None:
        before = EXPORTS.check(last).select(
            CUSTOMER_ID, pl.col(ACTION).alias("action before"), pl.col(ACTION_CHANNEL).alias("was")
        )
        told = (
            told.join(before, on=CUSTOMER_ID, how="left")
            .filter(pl.col("action before").is_null() | (pl.col("action before") != pl.col(ACTION)))
            .with_columns(
                pl.when(pl.col("action before").is_null())
                .then(pl.lit(ADDED))
                .otherwise(pl.lit(CHANGED))
                .alias(EXPORT_CHANGE)
            )
        )
        moved = told.filter(pl.col("was").is_not_null() & (pl.col("was") != pl.col(ACTION_CHANNEL)))[
            CUSTOMER_ID
        ]
        now = decisions.filter((pl.col(ACTION) != NOTHING) & (pl.col(CONSENT) != "withdrawn"))[CUSTOMER_ID]
        gone = last.filter(
            ~pl.col(CUSTOMER_ID).is_in(now.implode()) | pl.col(CUSTOMER_ID).is_in(moved.implode())
        )
        gone = gone.with_columns(pl.lit(REMOVED).alias(EXPORT_CHANGE))
        told = pl.concat([told.select(EXPORTS.schema.names()), gone.select(EXPORTS.schema.names())])
    return EXPORTS.check(told.sort(ACTION_CHANNEL, CUSTOMER_ID, EXPORT_CHANGE))


def export(
    decisions: pl.DataFrame,
    folder: Path,
    delta: bool,
    rules: ExportOptions | None = None,
    needing_consent: Collection[str] = (),
) -> Exported:
    """Writes one CSV and one Parquet file per channel, whole or not at all, and remembers what was exported.

    A channel of the last export that has nobody any more is left with an empty file.

    Args:
        decisions: with actions.
        folder: for the files.
        delta: only what changed since the last export into this folder.
        rules: how cells are written, and whether consent is assumed.
        needing_consent: actions that need it.

    Raises:
        InputError: an action needs consent and nothing is known of it.
    """
    rules = rules or ExportOptions()
    if not rules.assume_consent:
        _check_consent(decisions, needing_consent)
    state = folder / STATE
    before = pl.read_parquet(state) if state.is_file() else None
    last = before if delta else None
    told = audiences(decisions, last)
    rows, files = {}, []
    channels = sorted(
        {*told[ACTION_CHANNEL].unique(), *(before[ACTION_CHANNEL].unique() if before is not None else ())}
    )
    for channel in channels:
        mine = told.filter(pl.col(ACTION_CHANNEL) == channel)
        name = f"{_safe(channel)}{DELTA if last is not None else ''}"
        write_table(mine, folder / f"{name}.parquet")
        with written_whole(folder / f"{name}.csv") as unfinished:
            (mine if rules.raw else _safe_cells(mine)).write_csv(unfinished)
        if last is None:  # a delta of before the whole is none any more
            for kind in (".csv", ".parquet"):
                (folder / f"{name}{DELTA}{kind}").unlink(missing_ok=True)
        files += [folder / f"{name}.csv", folder / f"{name}.parquet"]
        rows[channel] = mine.height
    about = {
        "cutoff": str(decisions[CUTOFF].max()),
        "rows": rows,
        "delta": last is not None,
        "schema": list(EXPORTS.schema.names()),
    }
    write_text(json.dumps(about, indent=1), folder / "exports.json")
    write_table(audiences(decisions), state)
    if decisions.height:
        _log(decisions, folder)
    return Exported(rows, tuple(files))


def logged_in(folder: Path, cutoff: datetime) -> pl.DataFrame:
    """The decisions that were exported at a cutoff, the last ones of each customer; empty where there are none."""
    found = sorted((folder / LOG).glob("*.parquet"))
    tables = [pl.read_parquet(path).filter(pl.col(CUTOFF) == cutoff) for path in found]
    if not tables:
        return DECISIONS.schema.to_frame()
    return pl.concat(tables, how="diagonal").unique(CUSTOMER_ID, keep="last", maintain_order=True)


def _log(decisions: pl.DataFrame, folder: Path) -> None:
    """Keeps what was decided for everyone, with its chance, so that other policies can be judged by it later."""
    number = len(list((folder / LOG).glob("*.parquet"))) + 1
    write_table(decisions, folder / LOG / f"{number:06d}-{decisions[POLICY][0]}.parquet")


def _safe(channel: str) -> str:
    """A channel's name as part of a file's: no path, no surprise, no name of ours, and no two channels alike."""
    plain = (
        "".join(sign if sign.isalnum() or sign in "-_" else f"%{ord(sign):02X}" for sign in channel) or "%"
    )
    is_ours = plain.lower() in RESERVED or plain.lower().endswith(DELTA)
    return f"%{ord(plain[0]):02X}{plain[1:]}" if is_ours else plain


def _check_consent(decisions: pl.DataFrame, needing_consent: Collection[str]) -> None:
    unknown = decisions.filter(
        pl.col(ACTION).is_in(list(needing_consent)) & (pl.col(CONSENT) == UNKNOWN_CONSENT)
    )
    if unknown.height:
        channels = ", ".join(sorted(unknown[ACTION_CHANNEL].unique()))
        raise InputError(
            f"export: {unknown.height:,} customers would be contacted by {channels}, which needs consent, and the events hold "
            "none. Give it with data.columns.consent=<column> or consent events, or write export.assume_consent=true where "
            "everyone has agreed."
        )


def _safe_cells(table: pl.DataFrame) -> pl.DataFrame:
    """The table with an apostrophe before each text that a spreadsheet would run as a formula (OWASP, CSV injection)."""
    texts = [name for name, dtype in table.schema.items() if dtype == pl.String]
    return table.with_columns(
        pl.when(pl.col(name).str.contains(RUN_BY_SPREADSHEETS))
        .then("'" + pl.col(name))
        .otherwise(name)
        .alias(name)
        for name in texts
    )
