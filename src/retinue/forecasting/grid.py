"""A grid of past cutoffs: what was known at each, and what came true after it up to the cutoff of the forecast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from retinue.accel.engine import EngineChoice, collect
from retinue.evaluation.realised import realised
from retinue.events.store import Store, buyer_codes
from retinue.events.timeline import bulk_days, days_before, history
from retinue.features.catalogue import Family
from retinue.features.query import available_at, features_at
from retinue.schema import CUSTOMER, CUSTOMER_ID, CUTOFF, FREQUENCY, HORIZON_DAYS, T_DAYS

MOST_CUSTOMERS = 25_000
MOST_CUTOFFS = 26
LEAST_CUSTOMERS = 50
LEAST_DAYS = 7
YEAR_DAYS = 365
ORIGINS = 3
THIRDS = 3  # cutoffs per inner horizon
SIXTHS = 6  # the same where the history is short
OLDEST = 1 / 8  # of the history must lie before a cutoff of the grid
FURTHEST = 0.6  # of the history may lie after an inner origin


@dataclass(frozen=True)
class Layout:
    """Where the grid's cutoffs lie, in days before the cutoff of the forecast.

    Attributes:
        asked_days: The longest horizon asked for.
        inner_days: The horizon that inner forecasts are judged at: the asked one, or what has the same proportion to the
            history before it.
        offsets: Of every cutoff of the grid, ascending.
        horizons: Of the examples, ascending.
        origins: Those offsets at which inner forecasts are made and judged.
    """

    asked_days: int
    inner_days: int
    offsets: tuple[int, ...]
    horizons: tuple[int, ...]
    origins: tuple[int, ...]

    @property
    def is_evidence(self) -> bool:
        """Whether inner forecasts look at least a third as far ahead as the asked one; a shorter look cannot rank rungs."""
        return 3 * self.inner_days >= self.asked_days

    @property
    def sees_seasons(self) -> bool:
        """Whether the grid holds the same season of an earlier year, with what came after it."""
        return bool(self.offsets) and self.offsets[-1] >= YEAR_DAYS + self.inner_days

    @property
    def disjoint_windows(self) -> float:
        """How many windows of the inner horizon's length the judged futures amount to."""
        return 1 + (self.origins[-1] - self.origins[0]) / self.inner_days if self.origins else 0.0


def layout(span_days: int, horizon_days: int) -> Layout | None:
    """The grid for a history of so many days; None where it is too short to hold one.

    The inner horizon is the asked one where the history is three times as long. Of a shorter history H it is the x
    that stands to H - x as the asked one stands to H, so that rungs are judged on looking as far beyond what
    they have seen as they are asked to; but between a third and a half of H. Cutoffs lie a third of it apart (a
    sixth where it is more than a third of the history), 26 at most, and further apart where that reaches back to
    the season of a year before. The inner origins are three, the latest with just its window observed, spread
    as far as leaves each two fifths of the history.

    Args:
        span_days: first order to cutoff.
        horizon_days: the longest horizon asked for.
    """
    in_proportion = span_days * horizon_days // (span_days + horizon_days)
    inner = min(horizon_days, max(span_days // 3, min(in_proportion, span_days // 2)))
    if inner < LEAST_DAYS:
        return None
    per_inner = THIRDS if inner <= span_days // 3 else SIXTHS
    reach = min(int(span_days * (1 - OLDEST)), YEAR_DAYS + 2 * inner)
    step = max(-(-inner // per_inner), span_days // 48, -(-reach // MOST_CUTOFFS))
    steps = min(MOST_CUTOFFS, int(span_days * (1 - OLDEST)) // step)
    offsets = tuple(step * i for i in range(1, steps + 1))
    wanted = sorted({inner, horizon_days, *(step * 2**i for i in range(steps.bit_length()))})
    horizons = tuple(days for days in wanted if days <= min(horizon_days, offsets[-1]))
    first = -(-inner // step)
    room = int(span_days * FURTHEST) // step - first
    gap = min(THIRDS, room // (ORIGINS - 1))
    count = ORIGINS if gap else 1 + max(min(room, 1), 0)
    origins = tuple(step * (first + i * max(gap, 1)) for i in range(count))
    return Layout(horizon_days, inner, offsets, horizons, tuple(o for o in origins if o in offsets))


@dataclass(frozen=True)
class Grid:
    """Features and outcomes of (a sample of) the customers at past cutoffs.

    Attributes:
        cutoff: Of the forecast; nothing after it was read.
        layout: Which cutoffs and horizons there are.
        features: Per offset in days, the features of customers who had ordered, sorted by customer_id.
        truth: The `realised` table of every cutoff and horizon whose window closed at the cutoff or before.
        zone: Whose days the offsets count.
    """

    cutoff: datetime
    layout: Layout
    features: dict[int, pl.DataFrame]
    truth: pl.DataFrame
    zone: str

    def at(self, offset: int) -> datetime:
        """The cutoff so many days before."""
        return days_before(self.cutoff, offset, self.zone)

    def outcomes(self, offset: int, horizon_days: int) -> pl.DataFrame:
        """Rows of `truth` for one cutoff and horizon, in the row order of its features."""
        window = (pl.col(CUTOFF) == self.at(offset)) & (pl.col(HORIZON_DAYS) == horizon_days)
        keys = self.features[offset].select(CUSTOMER_ID)
        return keys.join(
            self.truth.filter(window), on=CUSTOMER_ID, how="left", validate="1:1", maintain_order="left"
        )

    def windows(self, closed_by: int = 0) -> list[tuple[int, int]]:
        """(offset, horizon_days) of the examples: of each cutoff the longest window that closes in time.

        Args:
            closed_by: days before the grid's cutoff at which a window must have closed.
        """
        found = []
        for offset in self.features:
            fits = [days for days in self.layout.horizons if offset - days >= closed_by]
            found += [(offset, fits[-1])] if fits else []
        return found


def grid_at(
    store: Store,
    cutoff: datetime,
    horizons: Sequence[int],
    engine: EngineChoice,
    most_customers: int = MOST_CUSTOMERS,
) -> Grid | None:
    """The grid before one cutoff, or None where the history is too short or fewer than 50 customers are known.

    More customers than `most_customers` are thinned to those with the lowest codes, which are hashes;
    features that look at the whole base (cohorts, prices) then look at the sample.

    Args:
        store: prepared events.
        cutoff: end of what may be read.
        horizons: asked for, whole days.
        engine: runs the queries.
        most_customers: at most.
    """
    known = _sampled(history(store.scan(), cutoff), engine, most_customers)
    zone = store.local_zone
    btyd = collect(features_at(known, cutoff, zone, families=(Family.btyd,)), engine)
    ages = btyd[T_DAYS].drop_nulls().to_numpy()
    plan = layout(int(bulk_days(ages)), max(horizons)) if len(ages) else None
    if plan is None or btyd[FREQUENCY].count() < LEAST_CUSTOMERS:
        return None
    kept = available_at(known, cutoff, zone)[0]
    features = {}
    for offset in plan.offsets:
        asked = features_at(known, days_before(cutoff, offset, zone), zone, features=kept)
        buyers = collect(asked, engine).filter(pl.col(FREQUENCY).is_not_null()).sort(CUSTOMER_ID)
        if buyers.height >= LEAST_CUSTOMERS:
            features[offset] = buyers
    pairs = [(o, h) for o in features for h in sorted({*plan.horizons, plan.inner_days}) if h <= o]
    truth = [realised(known, days_before(cutoff, o, zone), h, zone) for o, h in pairs]
    if not truth:
        return None
    return Grid(cutoff, plan, features, pl.concat([query.collect() for query in truth]), zone)


def _sampled(known: pl.LazyFrame, engine: EngineChoice, most: int) -> pl.LazyFrame:
    codes = collect(buyer_codes(known), engine, whole_base=True)[CUSTOMER]
    if len(codes) > most:
        known = known.filter(pl.col(CUSTOMER) <= int(np.sort(codes.to_numpy())[most - 1]))
    return collect(known, engine, whole_base=True).lazy()
