"""From raw tables to the event store in two passes that never hold more than one batch or one shard in memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from datetime import time as dt_time
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl

from retinue.cluster import HERE, Spread
from retinue.events.batches import clean
from retinue.events.cleaning import CLOCK, FUTURE, SAME_A, SAME_B, Rules, customer_code, pseudonyms
from retinue.events.clock import DAY_FIRST, MIDNIGHT, TICKING, Clock, zone_checked
from retinue.events.findings import Stored, findings
from retinue.events.fingerprints import fingerprint, secret_of
from retinue.events.numbers import Forms, NumberForm, decide, evidence, form_of
from retinue.events.orders import Grouping, event_columns, to_events
from retinue.events.reading import BROKEN, unreadable
from retinue.events.sources import Input, inputs_of, protected_of
from retinue.events.store import Manifest, Store, write_table
from retinue.events.tally import Tally
from retinue.events.timeline import instant
from retinue.options import AmountIs, DataOptions
from retinue.schema import (
    BASE,
    CUSTOMER,
    CUSTOMER_ID,
    EVENT_TIME,
    EVENTS,
    ORDER,
    QUARANTINE,
    REFUND,
    InputError,
    shown,
)

__all__ = ["fingerprint", "prepare", "zones"]

Report = Callable[[str, float], None]

ROWS_PER_SHARD = 2_000_000
MAX_SHARDS = 4096
ROWS_PER_PART = 2_000
MOST_HELD_ROWS = 4_000_000
_PARTS, _COPIES = "parts", "copies"


def prepare(
    options: DataOptions, folder: Path, shards: int = 0, report: Report | None = None, spread: Spread = HERE
) -> Store:
    """Reads, cleans, identifies and stores events; the folder appears whole or not at all.

    Args:
        options: where events come from and how to read them.
        folder: the store to write; an older one there is replaced.
        shards: number of shards; 0 = about one per 2 million rows.
        report: called with a sentence and the share of the work that is done (0 to 1).
        spread: how files, and then shards, are worked on.

    Raises:
        InputError: a file, column or value breaks a rule; the message names field, row and cure.
    """
    say = report or (lambda text, share: None)
    mark = fingerprint(options, shards)
    unfinished = _fresh(folder)
    try:
        manifest = _build(options, unfinished, shards, mark, say, spread)
        check_unchanged(options, shards, mark)
        Store(unfinished, manifest).write_manifest()
        _put_in_place(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Store(folder, manifest)


def check_unchanged(options: DataOptions, shards: int, mark: str) -> None:
    """Raises InputError where a file is other than when the work on it began."""
    if fingerprint(options, shards) != mark:
        raise InputError(
            f"data={options.name}: a file changed while it was read or worked on. Wait until the export is done, and run the "
            "same command again."
        )


def _beside(folder: Path, end: str) -> Path:
    return folder.with_name(f".{folder.name}.{end}")


def _fresh(folder: Path) -> Path:
    """An empty temporary sibling; what a killed run left there is removed."""
    for leftover in (_beside(folder, "unfinished"), _beside(folder, "replaced")):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished = _beside(folder, "unfinished")
    (unfinished / _PARTS).mkdir(parents=True)
    return unfinished


def _put_in_place(unfinished: Path, folder: Path) -> None:
    replaced = _beside(folder, "replaced")
    if folder.exists():
        os.replace(folder, replaced)
    os.replace(unfinished, folder)
    shutil.rmtree(replaced, ignore_errors=True)


def _build(
    options: DataOptions, folder: Path, shards: int, mark: str, say: Report, spread: Spread
) -> Manifest:
    inputs = inputs_of(options, folder / _COPIES)
    estimate = sum(source.table.rows for source in inputs)
    count = shards or max(1, min(MAX_SHARDS, -(-estimate // ROWS_PER_SHARD)))
    if not 1 <= count <= MAX_SHARDS:
        raise InputError(f"shards={shards}: must be 0 (found from the rows) to {MAX_SHARDS}.")
    rules = _rules(options, inputs)
    tally = _first_pass(inputs, rules, folder / _PARTS, count, max(estimate, 1), say, spread)
    if rules.secret is not None:
        tally.mask()
    tally.check(options.max_bad_share, [source.table.label for source in inputs], options.null_values)
    grouping = _grouping(options, tally)
    stored = _second_pass(folder, count, grouping, say, spread)
    kept = tally.rows_in + tally.made_rows - tally.quarantined - stored.duplicates - tally.left_out_rows
    assert kept == stored.rows, (
        f"row balance: {tally.rows_in} in, {tally.made_rows} made, {stored.rows} kept, {tally.quarantined} quarantined, "
        f"{stored.duplicates} merged, {tally.left_out_rows} left out"
    )
    _write_quarantine(folder)
    _write_protected(options, rules, folder)
    shutil.rmtree(folder / _PARTS)
    shutil.rmtree(folder / _COPIES, ignore_errors=True)
    say("events stored", 1.0)
    return _manifest(options, tally, stored, grouping, count, mark)


def _rules(options: DataOptions, inputs: list[Input]) -> Rules:
    zone, local_zone = zones(options)
    if options.observation_end is not None:
        latest = instant(options.observation_end, local_zone, "data.observation_end")
        why = "after data.observation_end"
    else:
        latest, why = datetime.now(UTC), FUTURE
    clocks: dict[str, Clock] = {}
    forms: dict[str, Forms] = {}
    given = form_of(options.decimal, options.thousands)
    for source in inputs:
        group = [other for other in inputs if other.group == source.group]
        clock = Clock(
            zone, local_zone, options.time_format, _DayFirst(group), _AllMidnight(group, options.time_format)
        )
        clocks.setdefault(source.group, clock)
        forms.setdefault(source.group, Forms(given, partial(_number_form, group)))
    return Rules(
        options.base,
        options.event_type,
        tuple(options.null_values),
        latest,
        why,
        clocks,
        forms,
        tuple(options.consent_yes),
        tuple(options.consent_no),
        tuple(options.id_normalise),
        tuple(options.guest_ids),
        secret_of(options),
    )


def zones(options: DataOptions) -> tuple[str, str]:
    """Zone of naive times, and zone of the shoppers."""
    zone = zone_checked(options.time_zone or "UTC", "data.time_zone")
    return zone, zone_checked(options.local_zone or zone, "data.local_zone")


class _DayFirst:
    """Asks the whole time column once whether the day comes first, so that no row order changes the answer."""

    def __init__(self, group: list[Input]) -> None:
        self.group = group
        self.answer: bool | None = None

    def __call__(self) -> bool:
        if self.answer is None:
            self.answer = self._ask()
        return self.answer

    def _ask(self) -> bool:
        first = second = 0
        sample, name, label = "", "", ""
        for source in self.group:
            text = source.expressions[EVENT_TIME].cast(pl.String)
            second_part = pl.coalesce(text.str.extract(DAY_FIRST, 2), text.str.extract(DAY_FIRST, 3))
            parts = [part.cast(pl.Int16).max() for part in (text.str.extract(DAY_FIRST, 1), second_part)]
            some = text.filter(text.str.contains(DAY_FIRST)).first()
            try:
                query = source.table.frame.select(
                    parts[0].alias("a"), parts[1].alias("b"), some.alias("some")
                )
                a, b, seen = query.collect(engine="streaming").row(0)
            except BROKEN as error:
                raise unreadable(source.table.label, error) from error
            first, second = max(first, a or 0), max(second, b or 0)
            sample, name, label = sample or seen or "", source.names[EVENT_TIME], source.table.label
        if (first > 12) == (second > 12):
            raise InputError(
                f"{label}: column '{name}' has times such as '{sample}', and whether day or month comes first "
                "cannot be told. Set data.time_format='%d/%m/%Y' or '%m/%d/%Y' (with ' %H:%M' where there is a clock)."
            )
        return first > 12


def _number_form(group: list[Input], column: str) -> NumberForm:
    """How the numbers of a column of ours are written in a group of tables, by all of its cells."""
    counts, example, where, separator = [0, 0, 0, 0], "", "", None
    for source in group:
        if column not in source.expressions:
            continue
        text = source.expressions[column].cast(pl.String).str.strip_chars()
        try:
            row = source.table.frame.select(evidence(text)).collect(engine="streaming").row(0)
        except BROKEN as error:
            raise unreadable(source.table.label, error) from error
        counts = [count + (more or 0) for count, more in zip(counts, row[:4], strict=True)]
        if row[4] is not None and not example:
            example, separator = row[4], source.table.separator
            where = f"{source.table.label}: column '{shown(source.names.get(column, column))}'"
    return decide((counts[0], counts[1], counts[2], counts[3]), example, where, separator)


class _AllMidnight:
    """Asks the whole time column once whether every time is midnight, as a database writes dates."""

    def __init__(self, group: list[Input], form: str | None) -> None:
        self.group, self.form = group, form
        self.answer: bool | None = None

    def __call__(self) -> bool:
        if self.answer is None:
            self.answer = not any(self._ticks(source) for source in self.group)
        return self.answer

    def _ticks(self, source: Input) -> bool:
        time = source.expressions[EVENT_TIME]
        dtype = source.table.frame.select(time.alias("time")).collect_schema()["time"]
        if isinstance(dtype, pl.Datetime):
            ticks = time.dt.time() != dt_time()
        elif self.form is not None:
            ticks = time.cast(pl.String).str.to_datetime(self.form, strict=False).dt.time() != dt_time()
        else:
            text = time.cast(pl.String)
            ticks = text.str.contains(TICKING) & ~text.str.contains(MIDNIGHT)
        try:
            found = source.table.frame.select(ticks.any().alias("ticks")).collect(engine="streaming")
        except BROKEN as error:
            raise unreadable(source.table.label, error) from error
        return bool(found.item())


def _first_pass(
    inputs: list[Input], rules: Rules, parts: Path, shards: int, estimate: int, say: Report, spread: Spread
) -> Tally:
    """Streams every input once: usable rows to parts by shard, the rest to the quarantine."""
    whole = Tally()

    def tell(label: str, rows: int) -> None:
        say(f"reading {label}: {rows:,} rows", 0.6 * min(rows / estimate, 1.0))

    def tell_here(label: str, rows: int) -> None:
        tell(label, whole.rows_in + rows)

    # from another process nothing is heard until a file is done
    heard = tell_here if spread.is_here else None
    numbered = list(enumerate(inputs))
    for source, tally in zip(
        inputs, spread(partial(_read, rules, parts, shards, heard), numbered), strict=True
    ):
        whole.add(tally)
        whole.remarks += [note for note in source.notes if note not in whole.remarks]
        tell(source.table.label, whole.rows_in)
    return whole


def _read(
    rules: Rules,
    parts: Path,
    shards: int,
    tell: Callable[[str, int], None] | None,
    numbered: tuple[int, Input],
) -> Tally:
    """One input; done twice it writes the same files."""
    place, source = numbered
    tally = Tally(notes=[f"{source.table.label}: {note}" for note in source.table.notes])
    held: list[pl.DataFrame] = []
    written = 0
    # many shards would make many files of a few rows each
    wanted = min(shards * ROWS_PER_PART, MOST_HELD_ROWS)
    for number, raw in enumerate(source.table.batches()):
        rows, bad = clean(raw, source, rules, tally)
        if bad.height:
            bad.write_parquet(parts / f"quarantine-{place:06d}-{number:06d}.parquet", compression="lz4")
        held.append(rows)
        if sum(some.height for some in held) >= wanted:
            _write_parts(pl.concat(held), parts, shards, f"{place:06d}-{written:06d}")
            held, written = [], written + 1
        if tell is not None:
            tell(source.table.label, tally.rows_in)
    if held:
        _write_parts(pl.concat(held), parts, shards, f"{place:06d}-{written:06d}")
    return tally


def _write_parts(rows: pl.DataFrame, parts: Path, shards: int, name: str) -> None:
    rows = rows.with_columns((pl.col(CUSTOMER) % shards).alias("__shard__"))
    for (shard,), part in rows.partition_by("__shard__", as_dict=True, include_key=False).items():
        target = parts / f"{shard:05d}"
        target.mkdir(exist_ok=True)
        part.write_parquet(target / f"{name}.parquet", compression="lz4", statistics=False)


def _grouping(options: DataOptions, tally: Tally) -> Grouping:
    filled = {column for column, count in tally.filled.items() if count}
    changes = bool(tally.made["consent"])
    amount_is = options.amount_is or AmountIs.line
    return Grouping(event_columns(filled), options.merge_duplicates, zones(options)[1], changes, amount_is)


def _second_pass(folder: Path, shards: int, grouping: Grouping, say: Report, spread: Spread) -> Stored:
    """Each shard on its own: duplicates, orders, sorting, one Parquet file."""
    total = Stored()
    for shard, stored in enumerate(spread(partial(_store, folder, grouping), range(shards))):
        # only here, for a shard whose worker died between its file and its answer is stored once more
        shutil.rmtree(_parts_of(folder, shard), ignore_errors=True)
        total += stored
        say(f"storing shard {shard + 1} of {shards}", 0.6 + 0.4 * (shard + 1) / shards)
    return total


def _parts_of(folder: Path, shard: int) -> Path:
    return folder / _PARTS / f"{shard:05d}"


def _store(folder: Path, grouping: Grouping, shard: int) -> Stored:
    rows = _shard_rows(_parts_of(folder, shard), grouping)
    _check_codes(rows)
    grouped = to_events(rows, grouping)
    del rows
    EVENTS.check(grouped.events)
    write_table(grouped.events, folder / f"shard-{shard:05d}.parquet")
    return Stored.of(grouped)


def _shard_rows(source: Path, grouping: Grouping) -> pl.DataFrame:
    kept = [column for column in (*EVENTS.columns, *EVENTS.optional) if column in grouping.columns]
    wanted = {str(c): c.dtype for c in kept if c not in ("lines", "categories")} | {
        SAME_A: pl.UInt64(),
        SAME_B: pl.UInt64(),
        CLOCK: pl.Boolean(),
    }
    parts = []
    for path in sorted(source.glob("*.parquet")):
        part = pl.read_parquet(path)
        parts.append(part.select(name for name in wanted if name in part.columns))
    empty = pl.DataFrame(schema=wanted)
    return pl.concat([empty, *parts], how="diagonal", rechunk=False)


def _check_codes(rows: pl.DataFrame) -> None:
    """Raises where two customers share a code; at 63 bits this is expected once in 10^11 bases of 10 k customers."""
    pairs = rows.select(CUSTOMER, BASE, CUSTOMER_ID).unique()
    if pairs.height == pairs[CUSTOMER].n_unique():
        return
    both = (
        pairs.filter(pairs[CUSTOMER].is_duplicated())
        .sort(CUSTOMER, CUSTOMER_ID)[CUSTOMER_ID]
        .head(2)
        .to_list()
    )
    raise InputError(
        f"events: customers '{both[0]}' and '{both[1]}' get the same 63-bit code. Set data.base to another name, "
        "which changes all codes."
    )


def _write_quarantine(folder: Path) -> None:
    paths = sorted((folder / _PARTS).glob("quarantine-*.parquet"))
    table = pl.scan_parquet(paths) if paths else pl.LazyFrame(schema=QUARANTINE.schema)
    write_table(table, folder / "quarantine.parquet")


def _write_protected(options: DataOptions, rules: Rules, folder: Path) -> None:
    table = protected_of(options)
    if table is None:
        return
    if rules.secret is not None:
        table = table.with_columns(pseudonyms(table[CUSTOMER_ID], rules.secret).alias(CUSTOMER_ID)).sort(
            CUSTOMER_ID
        )
    keyed = table.with_columns(pl.lit(rules.base).alias(BASE))
    write_table(table.insert_column(1, customer_code(keyed)), folder / "protected.parquet")


def _manifest(
    options: DataOptions, tally: Tally, stored: Stored, grouping: Grouping, shards: int, mark: str
) -> Manifest:
    zone, local_zone = zones(options)
    assert tally.first_time is not None
    assert tally.last_time is not None
    if options.observation_end is not None:
        end = instant(options.observation_end, local_zone, "data.observation_end")
    else:
        end = instant(str(tally.last_time.astimezone(ZoneInfo(local_zone)).date()), local_zone)
    names = sorted({name for seen in tally.currencies.values() for name in seen})
    return Manifest(
        fingerprint=mark,
        shards=shards,
        rows_in=tally.rows_in,
        rows_kept=stored.rows,
        rows_quarantined=tally.quarantined,
        rows_duplicate=stored.duplicates,
        rows_left_out=tally.left_out_rows,
        rows_made=tally.made_rows,
        events=stored.events,
        customers=stored.customers,
        columns=list(grouping.columns),
        event_types=dict(sorted(stored.types.items())),
        first_event=tally.first_time.isoformat(),
        last_event=tally.last_time.isoformat(),
        observation_end=end.isoformat(),
        observation_end_given=options.observation_end is not None,
        time_zone=zone,
        local_zone=local_zone,
        has_clock=tally.has_clock((ORDER, REFUND)),
        currency=options.currency or (names[0] if len(names) == 1 else ""),
        notes=findings(options, tally, stored, grouping),
        future_from=None if tally.future_from is None else tally.future_from.isoformat(),
    )
