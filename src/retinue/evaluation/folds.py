"""Rolling origins, and the stores as they would have been at one: what came later is absent, or scrambled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import polars as pl

from retinue.events.store import Manifest, Store
from retinue.events.timeline import days_before, history, is_observed, not_yet_known
from retinue.schema import AMOUNT, CUSTOMER, EVENT_TIME, EVENT_TYPE, KNOWN_TIME, InputError

LEAST_HISTORY_DAYS = 14


def rolling_origins(
    first_event: datetime, end: datetime, horizon_days: int, count: int, zone: str
) -> list[datetime]:
    """So many cutoffs, evenly spaced in days of the zone, ascending; the last one's future ends where the data do.

    The first has a horizon of history before it, or half of what there is where the data are short. Futures
    overlap only where the data leave no room for disjoint ones.

    Raises:
        InputError: the data are too short for so many.
    """
    last = days_before(end, horizon_days, zone)
    span = (last - first_event).days
    least = max(min(horizon_days, span // 2), LEAST_HISTORY_DAYS)
    step = min(horizon_days, (span - least) // (count - 1)) if count > 1 else horizon_days
    if span < least or step < 1:
        raise InputError(
            f"origins={count}: the data cover {(end - first_event).days} days, too few for {count} "
            f"futures of {horizon_days} days "
            f"with {LEAST_HISTORY_DAYS} days of history before the first. Give a shorter horizon_days or fewer origins."
        )
    return [days_before(last, step * i, zone) for i in reversed(range(count))]


def check_origins(origins: list[datetime], end: datetime, horizon_days: int, zone: str) -> None:
    """Raises InputError for an origin whose future is not wholly observed."""
    for origin in origins:
        if not is_observed(end, origin, horizon_days, zone):
            raise InputError(
                f"cutoff={origin:%Y-%m-%d}: the data end on {end:%Y-%m-%d}, before cutoff + {horizon_days} days. "
                "A backtest needs the whole future; give an earlier cutoff or a shorter horizon_days."
            )


@dataclass(frozen=True)
class PastStore(Store):
    """A store that holds what was known at an origin and nothing else, whoever scans it."""

    origin: datetime

    def scan(self, shard: int | None = None) -> pl.LazyFrame:
        """Events known at the origin."""
        return history(super().scan(shard), self.origin)


@dataclass(frozen=True)
class ScrambledStore(PastStore):
    """The same past with another future: later events change hands, kind and amount, and a third of them are gone."""

    def scan(self, shard: int | None = None) -> pl.LazyFrame:
        """Events known at the origin as they were, and a future that never happened."""
        events = Store.scan(self, shard)
        mixed = [c for c in (EVENT_TYPE, AMOUNT, EVENT_TIME) if c in events.collect_schema()]
        later = not_yet_known(events, self.origin).with_columns(pl.col(c).reverse() for c in mixed)
        later = later.with_columns(pl.max_horizontal(KNOWN_TIME, EVENT_TIME).alias(KNOWN_TIME))
        later = not_yet_known(later.gather_every(3, 1), self.origin)
        past = history(events, self.origin)
        return pl.concat([past, later]).sort(CUSTOMER, EVENT_TIME, maintain_order=True)


def past_of(store: Store, origin: datetime) -> PastStore:
    """The store as it would have been at the origin: its manifest knows no later kind of event either."""
    return PastStore(store.folder, _manifest_at(store, origin), origin)


def scrambled_after(past: PastStore) -> ScrambledStore:
    """The same past, with events of a scrambled future beside it."""
    return ScrambledStore(past.folder, past.manifest, past.origin)


def _manifest_at(store: Store, origin: datetime) -> Manifest:
    known = history(store.scan(), origin)
    types = known.group_by(EVENT_TYPE).len().sort(EVENT_TYPE).collect()
    columns = [c for c in store.manifest.columns if c in known.collect_schema()]
    facts = known.select(
        pl.col(EVENT_TIME).max().alias("last"),
        pl.col(CUSTOMER).n_unique().alias("customers"),
        *(pl.col(c).count().alias(f"known {c}") for c in columns),
    ).collect()
    last = facts["last"][0] or origin
    return replace(
        store.manifest,
        event_types=dict(types.iter_rows()),
        events=int(types["len"].sum()),
        customers=int(facts["customers"][0]),
        columns=[c for c in columns if facts[f"known {c}"][0] > 0],
        last_event=last.isoformat(),
        observation_end=origin.isoformat(),
    )
