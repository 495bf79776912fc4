"""The token store: one token per event, in columns that are mapped into memory, one folder per shard."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars_hash as plh
from numpy.typing import NDArray

from retinue.cluster import HERE, Spread
from retinue.events.store import Store, write_text, written_whole
from retinue.schema import (
    AMOUNT,
    CATEGORIES,
    CUSTOMER,
    EVENT_TIME,
    EVENT_TYPE,
    KNOWN_TIME,
    LABELS,
    LINES,
    NUMBERS,
    ORDER_ID,
    SCHEMA_VERSION,
    InputError,
)

Ints = NDArray[np.int64]
Report = Callable[[str, float], None]

DAY_US = 86_400_000_000
CALENDAR = 6
COLUMNS = (
    "customer", "offsets", "event", "available", "day", "kind", "log_gap", "calendar", "numbers", "codes", "money",
)  # fmt: skip
_HASHED = 0xFFFF_FFFE  # codes are 1 + hash modulo this; 0 is none
_AVAILABLE, _DAY = "available", "day"


@dataclass(frozen=True)
class Tokens:
    """Events of C customers as N tokens, by customer, then by the time they became available, then by their content.

    Attributes:
        customer: (C,) codes, ascending.
        offsets: (C + 1,) where each customer's tokens begin; the last is N.
        event: (N,) microseconds since 1970 at which it happened.
        available: (N,) microseconds at which it could be known: the later of event time and known time.
        day: (N,) local day of the event, days since 1970.
        kind: (N,) index into `kinds`.
        log_gap: (N,) log1p days since the customer's token before became available; 0 for the first.
        calendar: (N, 6) see `calendar_of`, of the event's local day.
        numbers: (N, K) as they are in the events, NaN where null.
        codes: (N, F) stable hash of each label, 0 where null.
        money: (N,) amount, NaN where null.
        kinds: Event types of the store, ascending.
        names: Of the K numbers; amount is the first, also where the store has none.
        fields: Of the F labels.
        zone: Where days are read.
        observation_end: Last instant that the data cover.
        fingerprint: Of the events.
    """

    customer: Ints
    offsets: Ints
    event: Ints
    available: Ints
    day: NDArray[np.int32]
    kind: NDArray[np.int16]
    log_gap: NDArray[np.float32]
    calendar: NDArray[np.float32]
    numbers: NDArray[np.float32]
    codes: NDArray[np.uint32]
    money: NDArray[np.float64]
    kinds: tuple[str, ...]
    names: tuple[str, ...]
    fields: tuple[str, ...]
    zone: str
    observation_end: datetime
    fingerprint: str

    @property
    def lengths(self) -> Ints:
        """Tokens of each customer, (C,)."""
        return np.diff(self.offsets)

    @property
    def owner(self) -> Ints:
        """Row of the customer of each token, (N,)."""
        return np.repeat(np.arange(len(self.customer)), self.lengths)

    def take(self, rows: Ints) -> Tokens:
        """The tokens of some customers, by their rows, ascending."""
        columns: dict[str, Any] = _gathered(vars(self), rows)
        return replace(self, **columns)

    def of_kind(self, name: str) -> NDArray[np.bool_]:
        """Whether each token is of this event type, (N,)."""
        return np.equal(self.kind, self.kinds.index(name) if name in self.kinds else -1)


@dataclass(frozen=True)
class TokenStore:
    """A folder of token columns with its manifest; a folder that has a manifest is a finished one."""

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> TokenStore:
        """Raises InputError where no finished store of this schema stands."""
        path = folder / "manifest.json"
        if not path.is_file():
            raise InputError(f"{folder}: holds no tokens. Run: retinue prepare data=… output=…")
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["schema_version"] != SCHEMA_VERSION:
            raise InputError(
                f"{folder}: tokens are of schema {manifest['schema_version']}, this is {SCHEMA_VERSION}. "
                "Run retinue prepare again."
            )
        return cls(folder, manifest)

    @property
    def shards(self) -> int:
        """Number of shards, the same as of the events."""
        return int(self.manifest["shards"])

    def read(self, shards: Sequence[int] | None = None, customers: Ints | None = None) -> Tokens:
        """The tokens of all shards, or of some; one shard is mapped into memory, not read.

        Args:
            shards: None means all.
            customers: Codes; only these are read, those that are not there are left out. None means all.

        Raises:
            InputError: there is no such shard.
        """
        wanted = list(range(self.shards)) if shards is None else list(shards)
        for shard in wanted:
            if not 0 <= shard < self.shards:
                raise InputError(f"shard={shard}: {self.folder} has shards 0 to {self.shards - 1}.")
        parts = [self._columns(shard) for shard in wanted]
        if customers is not None:
            parts = [_gathered(p, np.flatnonzero(np.isin(p["customer"], customers))) for p in parts]
        about = self.manifest
        return Tokens(
            **(parts[0] if len(parts) == 1 else _together(parts)),
            kinds=tuple(about["kinds"]),
            names=tuple(about["numbers"]),
            fields=tuple(about["fields"]),
            zone=about["zone"],
            observation_end=datetime.fromisoformat(about["observation_end"]),
            fingerprint=about["fingerprint"],
        )

    def _columns(self, shard: int) -> dict[str, NDArray[Any]]:
        folder = _shard_folder(self.folder, shard)
        return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in COLUMNS}


def write_tokens(
    store: Store, folder: Path, report: Report | None = None, spread: Spread = HERE
) -> TokenStore:
    """Writes the tokens of every event of a store, shard by shard; the manifest comes last.

    Args:
        store: Prepared events.
        folder: Where to; older tokens there are replaced.
        report: Called with a sentence and the share of the work that is done (0 to 1).
        spread: How shards are worked on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    about = store.manifest
    kinds = sorted(about.event_types)
    names, fields = _names(about.columns), _fields(about.columns)
    work = partial(_write_shard, store, folder, (kinds, names, fields))
    for shard, _ in enumerate(spread(work, range(about.shards))):
        if report is not None:
            report(f"tokens of shard {shard + 1} of {about.shards}", (shard + 1) / about.shards)
    for old in folder.glob("shard-*"):
        if old.name not in {_shard_folder(folder, shard).name for shard in range(about.shards)}:
            shutil.rmtree(old)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "shards": about.shards,
        "kinds": kinds,
        "numbers": names,
        "fields": fields,
        "zone": about.local_zone,
        "observation_end": about.observation_end,
        "fingerprint": about.fingerprint,
    }
    write_text(json.dumps(manifest, indent=1, ensure_ascii=False), folder / "manifest.json")
    return TokenStore(folder, manifest)


def tokens_of(events: pl.LazyFrame, zone: str) -> Tokens:
    """The tokens of an events table, without a folder; the end of observation is that of the latest event.

    Args:
        events: Of one base; optional columns may be absent.
        zone: Where the shoppers live.
    """
    frame = in_order(events, zone).collect()
    kinds = sorted(frame[EVENT_TYPE].unique())
    names, fields = _names(frame.columns), _fields(frame.columns)
    latest = frame[_AVAILABLE].max()
    return Tokens(
        **_columns_of(frame, (kinds, names, fields)),
        kinds=tuple(kinds),
        names=tuple(names),
        fields=tuple(fields),
        zone=zone,
        observation_end=latest if isinstance(latest, datetime) else datetime(1970, 1, 1, tzinfo=UTC),
        fingerprint="",
    )


def calendar_of(days: NDArray[Any]) -> NDArray[np.float32]:
    """Sine and cosine of the day of week, of the day of year, and of twice the day of year, (…, 6).

    Args:
        days: Local days since 1970-01-01, a Thursday.
    """
    days = np.asarray(days, dtype=np.int64)
    date = days.astype("datetime64[D]")
    of_year = (date - date.astype("datetime64[Y]")).astype(np.int64)
    week = 2 * math.pi * ((days + 3) % 7) / 7
    year = 2 * math.pi * of_year / 365.25
    waves = [wave(angle) for angle in (week, year, 2 * year) for wave in (np.sin, np.cos)]
    return np.stack(waves, axis=-1).astype(np.float32)


def _shard_folder(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}"


def _names(columns: Sequence[str]) -> list[str]:
    return [str(AMOUNT)] + [str(c) for c in (*NUMBERS, LINES, CATEGORIES) if c in columns and c != AMOUNT]


def _fields(columns: Sequence[str]) -> list[str]:
    return [str(c) for c in LABELS if c in columns]


def in_order(events: pl.LazyFrame, zone: str) -> pl.LazyFrame:
    """The events in the order of tokens, whatever the order of the rows, with `available` and `day`."""
    columns = events.collect_schema().names()
    known = pl.max_horizontal(EVENT_TIME, KNOWN_TIME)
    local = pl.col(EVENT_TIME).dt.convert_time_zone(zone).dt.date()
    content = [c for c in (ORDER_ID, *NUMBERS, LINES, CATEGORIES, *LABELS) if c in columns]
    return events.with_columns(known.alias(_AVAILABLE), local.cast(pl.Int32).alias(_DAY)).sort(
        CUSTOMER, _AVAILABLE, EVENT_TIME, EVENT_TYPE, *content, nulls_last=True
    )


def _write_shard(
    store: Store, folder: Path, about: tuple[list[str], list[str], list[str]], shard: int
) -> None:
    events = in_order(store.scan(shard), store.local_zone).collect()
    target, columns = _shard_folder(folder, shard), _columns_of(events, about)
    for name in COLUMNS:
        with written_whole(target / f"{name}.npy") as unfinished, unfinished.open("wb") as file:
            np.save(file, columns[name], allow_pickle=False)


def _columns_of(
    events: pl.DataFrame, about: tuple[list[str], list[str], list[str]]
) -> dict[str, NDArray[Any]]:
    """The columns of events that are in the order of tokens."""
    kinds, names, fields = about
    customer, offsets = _runs(events[CUSTOMER].to_numpy())
    available = events[_AVAILABLE].dt.epoch("us").to_numpy()
    gap = np.diff(available, prepend=available[:1]) / DAY_US
    gap[offsets[:-1]] = 0.0
    day = events[_DAY].to_numpy()
    kind = events[EVENT_TYPE].cast(pl.Enum(kinds)).to_physical().cast(pl.Int16)
    number = [
        events[n].cast(pl.Float64).fill_null(math.nan) if n in events.columns else _unknown(events)
        for n in names
    ]
    return {
        "customer": customer,
        "offsets": offsets,
        "event": events[EVENT_TIME].dt.epoch("us").to_numpy(),
        "available": available,
        "day": day,
        "kind": kind.to_numpy(),
        "log_gap": np.log1p(gap).astype(np.float32),
        "calendar": calendar_of(day),
        "numbers": np.stack([n.to_numpy() for n in number], axis=1).astype(np.float32),
        "codes": _codes(events, fields),
        "money": number[0].to_numpy(),
    }


def _unknown(events: pl.DataFrame) -> pl.Series:
    return pl.Series([math.nan]).new_from_index(0, events.height)


def _runs(customers: Ints) -> tuple[Ints, Ints]:
    """The distinct customers in order, and where each begins, with the end behind them."""
    new = np.flatnonzero(np.diff(customers)) + 1
    starts = np.concatenate([[0], new]) if len(customers) else np.zeros(0, dtype=np.int64)
    return customers[starts], np.concatenate([starts, [len(customers)]]).astype(np.int64)


def _codes(events: pl.DataFrame, fields: Sequence[str]) -> NDArray[np.uint32]:
    """Stable 32-bit hashes of labels, (N, F); 0 where null."""
    hashed = [
        pl.when(pl.col(name).is_not_null())
        .then(plh.col(name).nchash.xxhash64(seed=0) % _HASHED + 1)
        .otherwise(0)
        .cast(pl.UInt32)
        for name in fields
    ]
    if not fields:
        return np.zeros((events.height, 0), dtype=np.uint32)
    return events.select(hashed).to_numpy().reshape(events.height, len(fields))


def _together(parts: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """The columns of several shards as one, by customer, so that the number of shards changes nothing."""
    columns = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS if name != "offsets"}
    lengths = np.concatenate([np.diff(part["offsets"]) for part in parts])
    columns["offsets"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return _gathered(columns, np.argsort(columns["customer"], kind="stable"))


def _gathered(columns: dict[str, NDArray[Any]], who: Ints) -> dict[str, NDArray[Any]]:
    """The columns of some customers, in the order given."""
    starts, lengths = columns["offsets"][:-1][who], np.diff(columns["offsets"])[who]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
    found = {name: columns[name][rows] for name in COLUMNS if name not in ("customer", "offsets")}
    return {"customer": columns["customer"][who], "offsets": offsets, **found}
