"""Batch scoring: a trained rung over a store of any size, shard by shard, each written once and kept."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
from torch import Tensor

from retinue.accel.devices import training_device
from retinue.cluster import HERE, Spread
from retinue.events.store import Store, buyer_codes, write_table, write_text
from retinue.events.timeline import history
from retinue.features.catalogue import Feature, split
from retinue.features.frames import Whole
from retinue.features.query import CATALOGUE, features_at
from retinue.features.table import whole_at
from retinue.forecasting.base_model import BaseModel
from retinue.forecasting.clocked import CONTEXT_CUSTOMERS, context_of
from retinue.forecasting.outlook import Predictor
from retinue.forecasting.saved import SavedRung
from retinue.forecasting.table import buyers_of, forecasts_table
from retinue.options import Accelerator, ValueOptions
from retinue.pretraining.reading import Reading
from retinue.schema import (
    CLV,
    CUSTOMER,
    CUSTOMER_ID,
    CUSTOMERS,
    CUTOFF,
    EXPECTED_CHURNERS,
    EXPECTED_ORDERS,
    EXPECTED_SPEND,
    FORECAST_CHANGES,
    FORECASTS_SUMMARY,
    HORIZON_DAYS,
    MODEL,
    ORDER,
    P_CHURN,
    REASONS,
    InputError,
)
from retinue.sequences.tokens import Ints, Tokens, TokenStore

CUSTOMERS_AT_ONCE = 20_000
FOLDER, STAMPS, DAY_OF_TOTALS = "forecasts", ".scored", "day-of-totals"
PAGE = "forecasts.html"
OF_ALL_SHARDS = (*(f"{table.name}.parquet" for table in (FORECASTS_SUMMARY, REASONS, FORECAST_CHANGES)), PAGE)
Report = Callable[[str, float], None]


@dataclass(frozen=True)
class Share:
    """Which shards are this process's: every `processes`-th, from `rank` on."""

    rank: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.processes:
            raise InputError(
                f"scoring.rank={self.rank}: must lie between 0 and scoring.world_size - 1 = {self.processes - 1}."
            )

    def of(self, shards: int) -> range:
        """The shards, ascending."""
        return range(self.rank, shards, self.processes)


@dataclass(frozen=True)
class Scored:
    """What became of a process's shards: written, kept as they stood, or in the hands of another process.

    `totals` is the `forecasts_summary` of the base, None while other processes are at work on some of it or add it up.
    """

    written: tuple[int, ...]
    kept: tuple[int, ...]
    elsewhere: tuple[int, ...]
    totals: pl.DataFrame | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Moment:
    """What all customers share at a cutoff: sums over the base for features, and what the rung knows of the base.

    `rung` gives the predictor for customers with some tokens.
    """

    cutoff: datetime
    whole: Whole
    rung: Callable[[Tokens], Predictor]


@dataclass(frozen=True)
class Scoring:
    """A rung, the base it is asked about, and what is asked.

    Attributes:
        rung: From `load_rung` or `load_base_model`.
        store: Prepared events.
        tokens: The same events as tokens, in as many shards.
        cutoffs: Last instants of history.
        horizons: Whole days.
        value: Margin and discounting.
        spread: How shards are worked on.
    """

    rung: SavedRung | BaseModel
    store: Store
    tokens: TokenStore
    cutoffs: Sequence[datetime]
    horizons: Sequence[int]
    value: ValueOptions = field(default_factory=ValueOptions)
    spread: Spread = HERE

    def __post_init__(self) -> None:
        if (self.tokens.shards, self.tokens.manifest["fingerprint"]) != (
            self.store.manifest.shards,
            self.store.manifest.fingerprint,
        ):
            raise InputError(
                f"{self.tokens.folder}: the tokens are not those of {self.store.folder}. Run retinue prepare again."
            )

    @property
    def day(self) -> str:
        """Name of these forecasts' folder: the local day of the latest cutoff."""
        return f"{CUTOFF}={max(self.cutoffs).astimezone(ZoneInfo(self.store.local_zone)):%Y-%m-%d}"

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """What is asked of the events."""
        return self.rung.features(self.store.scan().collect_schema().names())

    @cached_property
    def moments(self) -> tuple[Moment, ...]:
        """Made when the first shard is scored; reads every shard, one at a time."""
        wholes = [
            (cutoff, whole_at(self.store, cutoff, spread=self.spread)) for cutoff in sorted(set(self.cutoffs))
        ]
        return tuple(Moment(cutoff, whole, self._rung_at(cutoff, whole)) for cutoff, whole in wholes)

    def shard(self, shard: int) -> pl.DataFrame:
        """The `forecasts` of a shard's customers, sorted by customer_id, cutoff, horizon_days."""
        events = self.store.scan(shard).collect().lazy()
        tokens = self.tokens.read([shard])
        parts = []
        for begin in range(0, len(tokens.customer), CUSTOMERS_AT_ONCE):
            who = np.array(tokens.customer[begin : begin + CUSTOMERS_AT_ONCE])
            theirs = events.filter(pl.col(CUSTOMER).is_between(int(who[0]), int(who[-1]))).collect().lazy()
            parts += [self._of(who, theirs, shard, moment) for moment in self.moments]
        return forecasts_table(parts)

    def buyers(self, shards: Sequence[int]) -> pl.DataFrame:
        """Keys and features of the buyers of some shards at every cutoff, as the checkpoint reads them."""
        parts = [self._buyers(self.store.scan(s), at.cutoff, at.whole) for s in shards for at in self.moments]
        return pl.concat(parts)

    def of_some(self, who: pl.Series, cutoff: datetime) -> tuple[Predictor, pl.DataFrame]:
        """The rung and all features of some customers who have ordered, whichever their shard.

        Args:
            who: customer ids.
            cutoff: one of `cutoffs`.
        """
        moment = next(moment for moment in self.moments if moment.cutoff == cutoff)
        about = self.store.manifest
        columns = self.store.scan().collect_schema().names()
        features = split(CATALOGUE, columns, [ORDER, *about.event_types], about.has_clock)[0]
        asked = partial(
            features_at, cutoff=cutoff, zone=self.store.local_zone, features=features, whole=moment.whole
        )
        parts = self.spread(partial(_features_of, self.store, asked, who), range(about.shards))
        buyers = buyers_of(pl.concat(parts))
        return moment.rung(self.tokens.read(customers=np.sort(buyers[CUSTOMER].to_numpy()))), buyers

    def _of(self, who: Ints, events: pl.LazyFrame, shard: int, moment: Moment) -> pl.DataFrame:
        buyers = self._buyers(events, moment.cutoff, moment.whole)
        if buyers.is_empty():
            return forecasts_table([])
        predictor = moment.rung(self.tokens.read([shard], who))
        return self.rung.rows(predictor, buyers, sorted(set(self.horizons)), self.value)

    def _buyers(self, events: pl.LazyFrame, cutoff: datetime, whole: Whole) -> pl.DataFrame:
        asked = features_at(events, cutoff, self.store.local_zone, features=self.features, whole=whole)
        return buyers_of(asked.collect())

    def _rung_at(self, cutoff: datetime, whole: Whole) -> Callable[[Tokens], Predictor]:
        match self.rung:
            case BaseModel():
                return self.rung.at(self.tokens, cutoff, self.spread)
            case SavedRung():
                reading = self.rung.reading(self.tokens, cutoff, self.spread)
                context = self._context(self.rung, reading, cutoff, whole)
                return partial(self.rung.predictor, context=context, reading=reading)

    def _context(
        self, rung: SavedRung, reading: Reading | None, cutoff: datetime, whole: Whole
    ) -> Tensor | None:
        """Of the customers of lowest code in the base, whichever their shard."""
        if rung.trained.network.readout.context is None:
            return None
        shards = range(self.store.manifest.shards)
        codes = [buyer_codes(history(self.store.scan(s), cutoff)).collect() for s in shards]
        who = np.sort(np.concatenate([c[CUSTOMER].to_numpy() for c in codes]))[:CONTEXT_CUSTOMERS]
        if not len(who):
            return None
        events = pl.concat([self.store.scan(s).filter(pl.col(CUSTOMER).is_in(who)).collect() for s in shards])
        tokens = self.tokens.read(customers=who)
        asked = rung.reader(tokens, None, reading)
        return context_of(rung.trained, tokens, asked.readouts(self._buyers(events.lazy(), cutoff, whole)))


def _features_of(
    store: Store, asked: Callable[[pl.LazyFrame], pl.LazyFrame], who: pl.Series, shard: int
) -> pl.DataFrame:
    events = store.scan(shard).filter(pl.col(CUSTOMER_ID).is_in(who.implode())).collect()
    return asked(events.lazy()).collect()


def score(
    scoring: Scoring, out: Path, share: Share | None = None, mark: str = "", report: Report | None = None
) -> Scored:
    """Writes `forecasts/cutoff=<day>/shard=…/part.parquet` for every shard of this process, each whole or not at all.

    The process that ends last writes `forecasts_summary.parquet`, the totals; what an earlier run made of all its
    shards is gone until then. Forecasts of other days stay.

    A shard that stands from the same checkpoint, events, options and mark is kept, so that a run which was
    killed goes on where it stopped. Which process scores a shard changes nothing in it.

    Args:
        scoring: what is asked of whom.
        out: folder; `forecasts/` and `.scored/` are made there.
        share: which shards are this process's; None means all.
        mark: what else the forecasts follow from, such as the code.
        report: called with a sentence and the share of the work that is done (0 to 1).
    """
    share, shards = share or Share(), scoring.store.manifest.shards
    key = scoring_key(scoring, mark)
    day = scoring.day
    if share.rank == 0:
        _remove_others(out, day, shards)
        if _day_of_totals(out) != day or not all(_stands(out, day, shard, key) for shard in range(shards)):
            for name in OF_ALL_SHARDS:
                (out / name).unlink(missing_ok=True)
    found: dict[str, list[int]] = {"written": [], "kept": [], "elsewhere": []}
    mine = share.of(shards)
    work = partial(_score_one, scoring, out, key)
    if not scoring.spread.is_here and not all(_stands(out, day, shard, key) for shard in mine):
        job = replace(scoring, spread=HERE)
        job.__dict__["moments"] = scoring.moments  # found once, and told to every process
        work = partial(_score_elsewhere, job, out, key)
    ended = scoring.spread(work, mine, on_gpu=True)
    for done, (shard, what) in enumerate(zip(mine, ended, strict=True), 1):
        found[what].append(shard)
        if report is not None:
            report(f"scored shard {shard + 1} of {shards}", done / len(mine))
    whole = None
    if all(_stands(out, day, shard, key) for shard in range(shards)):
        with alone(out, "summary") as free:
            if free:
                whole = totals(pl.read_parquet(part_path(out, day, shard)) for shard in range(shards))
                write_table(whole, out / OF_ALL_SHARDS[0])
                write_text(day, out / STAMPS / DAY_OF_TOTALS)
    written, kept, elsewhere = (tuple(found[name]) for name in ("written", "kept", "elsewhere"))
    return Scored(written, kept, elsewhere, whole)


def part_path(out: Path, day: str, shard: int) -> Path:
    """Where the forecasts of a shard stand; `day` is the folder's name, as `Scoring.day` gives it."""
    return out / FOLDER / day / f"shard={shard:05d}" / "part.parquet"


def read_forecasts(out: Path, day: str = f"{CUTOFF}=*") -> pl.LazyFrame:
    """The forecasts of every shard of a day, or of all days, as one table in no particular order."""
    return pl.scan_parquet(
        sorted((out / FOLDER).glob(f"{day}/shard=*/part.parquet")), hive_partitioning=False
    )


def days_scored(out: Path) -> list[str]:
    """Names of the folders of days, ascending."""
    return sorted(
        path.name for path in (out / FOLDER).glob(f"{CUTOFF}=*") if any(path.glob("shard=*/part.parquet"))
    )


def totals(parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """The `forecasts_summary` table: sums over the base by cutoff and horizon, one part in memory at a time."""
    keys = [CUTOFF, HORIZON_DAYS, MODEL]
    sums = [
        pl.len().cast(pl.Int64).alias(CUSTOMERS),
        pl.col(P_CHURN).sum().alias(EXPECTED_CHURNERS),
        pl.col(EXPECTED_ORDERS, EXPECTED_SPEND, CLV).sum(),
    ]
    added = pl.concat(part.group_by(keys).agg(sums) for part in parts).group_by(keys).agg(pl.all().sum())
    return FORECASTS_SUMMARY.check(added.select(FORECASTS_SUMMARY.schema.names()).sort(keys))


def _score_elsewhere(scoring: Scoring, out: Path, key: str, shard: int) -> str:
    """In a process that may have a GPU of its own."""
    scoring.rung.trained.network.to(training_device(Accelerator.auto))
    return _score_one(scoring, out, key, shard)


def _score_one(scoring: Scoring, out: Path, key: str, shard: int) -> str:
    day = scoring.day
    path, stamp = part_path(out, day, shard), _stamp_path(out, day, shard)
    with alone(out, f"{day}-{stamp.stem}") as free:
        if not free:
            return "elsewhere"
        if _stands(out, day, shard, key):
            return "kept"
        # what was made of all shards is no longer theirs
        for old in (stamp, *(out / name for name in OF_ALL_SHARDS)):
            old.unlink(missing_ok=True)
        write_table(_finite(scoring.shard(shard)), path)
        write_text(stamp_of(key, path), stamp)
        return "written"


def _finite(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows, once all that is added up over them is a number: a shard that is not would be kept for ever.

    Raises:
        InputError: some is not.
    """
    for column in (P_CHURN, EXPECTED_ORDERS, EXPECTED_SPEND, CLV):
        bad = rows.filter(~pl.col(column).is_finite())
        if not bad.is_empty():
            raise InputError(
                f"forecasts: '{column}' of {bad.height:,} rows is no finite number (first: customer {bad[CUSTOMER_ID][0]}), so "
                "the shard is not kept. The network of the checkpoint has gone astray: train it again, or take another one."
            )
    return rows


def scoring_key(scoring: Scoring, mark: str) -> str:
    """What the forecasts follow from; `mark` is what else."""
    about = scoring.store.manifest
    told = [
        scoring.rung.digest,
        about.fingerprint,
        about.shards,
        sorted({cutoff.isoformat() for cutoff in scoring.cutoffs}),
        sorted(set(scoring.horizons)),
        asdict(scoring.value),
        mark,
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def stamp_of(key: str, path: Path) -> str:
    """What is written beside a finished file to say what it follows from."""
    return json.dumps({"key": key, "bytes": path.stat().st_size})


def is_stamped(path: Path, stamp: Path, key: str) -> bool:
    """Whether the file stands as it was finished."""
    return stamp.is_file() and path.is_file() and stamp.read_text(encoding="utf-8") == stamp_of(key, path)


def stamp_path(out: Path, name: str) -> Path:
    """Where the stamp of a file stands."""
    return out / STAMPS / f"{name}.json"


def _stands(out: Path, day: str, shard: int, key: str) -> bool:
    return is_stamped(part_path(out, day, shard), _stamp_path(out, day, shard), key)


def _stamp_path(out: Path, day: str, shard: int) -> Path:
    return stamp_path(out, f"{day}/shard-{shard:05d}")


def _day_of_totals(out: Path) -> str | None:
    """Which day the totals and the page in this folder are of."""
    path = out / STAMPS / DAY_OF_TOTALS
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _remove_others(out: Path, day: str, shards: int) -> None:
    """What a run of this day with more shards has left would count its customers twice."""
    ours = {part_path(out, day, shard).parent.name for shard in range(shards)}
    for old in (out / FOLDER / day).glob("shard=*"):
        if old.name not in ours:
            shutil.rmtree(old)


@contextmanager
def alone(out: Path, work: str) -> Iterator[bool]:
    """Whether no other process is at this work; the kernel drops the lock with the process, however that ends."""
    path = out / STAMPS / f"{work}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
