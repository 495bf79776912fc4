"""All tokens and readouts in one memory, where a batch is a gather; and which customers go into a batch together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retinue.accel.devices import data_device
from retinue.events.timeline import is_known
from retinue.sequences.batches import Batch, Targets
from retinue.sequences.futures import Future, Start, future_of
from retinue.sequences.readouts import Readouts, Standing, next_orders, standing_of, windows_of
from retinue.sequences.season import Season
from retinue.sequences.tokens import Tokens
from retinue.sequences.vocabulary import Vocabulary, encode

Ints = NDArray[np.int64]

HORIZONS = 4
LENGTHS_ALIKE = 0.1  # by so much, in log length, may the order of lengths be shuffled


@dataclass(frozen=True)
class Truth:
    """What targets are made from, where the tokens are."""

    future: Future
    ends: Tensor  # (Q, W + 1)
    business: Tensor  # (Q, W + 1)
    days: Tensor  # (Q,)
    start: Start  # (R,)
    which: Tensor  # (R,)
    order: tuple[Tensor, Tensor, Tensor]  # (R,) each: window, before, until
    following: dict[str, Tensor]  # (N,) each: next_kind, next_gap, next_amount

    def targets(self, tokens: Tensor, readouts: Tensor, days: Tensor) -> Targets:
        """Of some tokens and readouts, at (R, H) whole days after the cutoff."""
        which = self.which[readouts][:, None]
        ends, horizon = self.ends[which, days], self.business[which, days].float()
        orders, gross, refunds = self.future.within(self.start[readouts], ends)
        window, before, until = (column[readouts] for column in self.order)
        following = {name: column[tokens] for name, column in self.following.items()}
        return Targets(window, before, until, horizon, orders, gross, refunds, **following)

    def random_days(self, readouts: Tensor, lot: Tensor) -> Tensor:
        """Whole days, log-uniform from 1 to the observed window, and the whole window last, (R, H).

        Args:
            readouts: (R,) indices.
            lot: (R, H - 1) of `lots`.
        """
        seen = self.days[self.which[readouts]][:, None]
        days = torch.exp(lot.to(seen.device) * torch.log(seen + 1.0)).long().clamp(min=1)
        return torch.cat([torch.minimum(days, seen), seen], dim=1)


def lots(readouts: int, horizons: int, generator: torch.Generator) -> Tensor:
    """What `Truth.random_days` needs, drawn on the host, so that every device has the same."""
    return torch.rand(readouts, horizons - 1, generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class Resident:
    """The P customers that are read out, with their tokens up to the last cutoff of each.

    The tensors lie on the device of the network where they fit there, else on the host.

    Attributes:
        device: Where batches are wanted.
        tokens: Columns of `Batch` with one row per token.
        readouts: Columns of `Batch` with one row per readout.
        truth: What targets are made from; None where nothing is to be learnt.
        lengths: (P,) tokens of each customer, on the host as all that follow.
        counts: (P,) readouts of each customer.
    """

    device: torch.device
    tokens: dict[str, Tensor]
    readouts: dict[str, Tensor]
    truth: Truth | None
    lengths: Ints
    counts: Ints
    _begins: Ints
    _firsts: Ints
    _at: Ints
    _which: Ints

    @property
    def home(self) -> torch.device:
        """Where the tensors are."""
        return self.tokens["kind"].device

    @property
    def is_far(self) -> bool:
        """Whether batches must be sent."""
        return self.home.type != self.device.type

    @property
    def bytes(self) -> int:
        """Of all tensors."""
        return sum(each.nbytes for each in _tensors((self.tokens, self.readouts, self.truth)))

    def at(self, home: torch.device) -> Resident:
        """The same with its tensors elsewhere."""
        columns = {name: _sent(getattr(self, name), home) for name in ("tokens", "readouts", "truth")}
        return replace(self, **columns)

    def rows(self, people: Ints) -> Ints:
        """Indices into the readouts, in the order in which a batch of these customers holds them."""
        return ranges(self._firsts[people], self.counts[people])

    def places(self, people: Ints) -> Ints:
        """Indices into the tokens, in the order in which a batch of these customers holds them."""
        return ranges(self._begins[people], self.lengths[people])

    def batch(
        self,
        people: Ints,
        generator: torch.Generator | None = None,
        horizons: int = HORIZONS,
        days: int | None = None,
        among: Ints | None = None,
    ) -> Batch:
        """All readouts of some customers, and the tokens they need.

        Args:
            people: Indices below P.
            generator: Draws the horizons of the targets.
            horizons: How many there are; the last is the whole observed window.
            days: In place of random horizons, this one, or the whole window where that is shorter.
            among: Customers whom these are some of, in the same order: horizons are drawn for all of them, so that
                a customer's do not depend on which of the others are in the batch.
        """
        begins, lengths = self._begins[people], self.lengths[people]
        seqlens = np.concatenate([[0], np.cumsum(lengths)])
        rows = self.rows(people)
        places = self._at[rows] + np.repeat(seqlens[:-1] - begins, self.counts[people])
        picked, read = (torch.from_numpy(i).to(self.home) for i in (ranges(begins, lengths), rows))
        targets = None
        if self.truth is not None:
            seen = self.truth.days[self.truth.which[read]][:, None]
            if days is not None:
                asked = seen.clamp(max=days)
            elif generator is not None:
                asked = self.truth.random_days(read, self._lots(people, among, horizons, generator))
            else:
                asked = seen
            targets = self.truth.targets(picked, read, asked)
        batch = Batch(
            **{name: column[picked] for name, column in self.tokens.items()},
            **{name: column[read] for name, column in self.readouts.items()},
            cu_seqlens=torch.from_numpy(seqlens.astype(np.int32)).to(self.home),
            at=torch.from_numpy(places).to(self.home),
            group=torch.from_numpy(np.unique(self._which[rows], return_inverse=True)[1]).to(self.home),
            targets=targets,
        ).check()
        if not self.is_far:
            return batch
        return batch.sent(self.device) if self.device.type == "cuda" else batch.to(self.device)

    def _lots(self, people: Ints, among: Ints | None, horizons: int, generator: torch.Generator) -> Tensor:
        everybody = people if among is None else among
        drawn = lots(int(self.counts[everybody].sum()), horizons, generator)
        if len(everybody) == len(people):
            return drawn
        asked = np.repeat(np.isin(everybody, people), self.counts[everybody])
        return drawn[torch.from_numpy(asked)]


def resident(
    tokens: Tokens,
    readouts: Readouts,
    vocabulary: Vocabulary,
    season: Season | None = None,
    device: torch.device | str = "cpu",
    base: int = 0,
) -> Resident:
    """Puts tokens and readouts on a device, or where they do not fit there on the host.

    Args:
        tokens: Of all customers of the readouts.
        readouts: Sorted by customer and cutoff.
        vocabulary: Of training time.
        season: Of training time; without it there are no targets.
        device: Of the network that reads them.
        base: Which base these customers belong to.

    Raises:
        InputError: a customer has no event at a cutoff, or targets are asked for where no day was observed.
    """
    standing = standing_of(tokens, readouts, vocabulary.gap_days)
    people, first, counts = np.unique(standing.row, return_index=True, return_counts=True)
    begins = tokens.offsets[people]
    last = standing.at[first + counts - 1] if len(people) else begins
    encoded = encode(tokens, vocabulary)
    token_columns = {n: _tensor(getattr(encoded, n)) for n in Batch.__annotations__ if hasattr(encoded, n)}
    readout_columns = _readout_columns(readouts, standing, base)
    truth = None
    if season is not None:
        truth = _truth(tokens, readouts, standing, (vocabulary.order_value, season), token_columns)
    places = (begins, first, standing.at, standing.which)
    wanted = torch.device(device)
    made = Resident(wanted, token_columns, readout_columns, truth, last + 1 - begins, counts, *places)
    return made if wanted.type == "cpu" else made.at(data_device(made.bytes, wanted))


def _tensors(thing: Any) -> Iterator[Tensor]:
    """All tensors in dataclasses, tuples and dicts."""
    if isinstance(thing, Tensor):
        yield thing
    for each in _inside(thing).values():
        yield from _tensors(each)


def _sent(thing: Any, device: torch.device) -> Any:
    """The same dataclasses, tuples and dicts with their tensors on a device."""
    if isinstance(thing, Tensor):
        return thing.to(device)
    moved = {name: _sent(each, device) for name, each in _inside(thing).items()}
    if is_dataclass(thing) and not isinstance(thing, type):
        return replace(thing, **moved)
    return tuple(moved.values()) if isinstance(thing, tuple) else moved if isinstance(thing, dict) else thing


def _inside(thing: Any) -> dict[Any, Any]:
    if isinstance(thing, dict):
        return thing
    return dict(enumerate(thing)) if isinstance(thing, tuple) else vars(thing) if is_dataclass(thing) else {}


def _readout_columns(readouts: Readouts, standing: Standing, base: int) -> dict[str, Tensor]:
    told = {} if readouts.anchor is None else {"anchor": _tensor(readouts.anchor)}
    return told | {
        "silence": _tensor(standing.silence),
        "cutoff_calendar": _tensor(standing.calendar),
        "features": _tensor(readouts.features),
        "base": torch.full((len(readouts),), base, dtype=torch.int64),
    }


def _truth(
    tokens: Tokens,
    readouts: Readouts,
    standing: Standing,
    units: tuple[float, Season],
    columns: dict[str, Tensor],
) -> Truth:
    order_value, season = units
    windows = windows_of(standing.moments, readouts.end, tokens.zone, season)
    future = future_of(tokens, readouts.end, order_value)
    start = future.start(_tensor(standing.row), _tensor(readouts.cutoff))
    order = next_orders(start.order_time.numpy(), standing.which, windows)
    return Truth(
        future=future,
        ends=_tensor(windows.ends),
        business=_tensor(windows.business),
        days=_tensor(windows.days),
        start=start,
        which=_tensor(standing.which),
        order=(_tensor(order.window), _tensor(order.before), _tensor(order.until)),
        following=_following(tokens, columns, is_known(tokens.available, readouts.end)),
    )


def _following(tokens: Tokens, columns: dict[str, Tensor], known: NDArray[np.bool_]) -> dict[str, Tensor]:
    """What each token's successor is, where it was known in time."""
    kind, gap, amount = columns["kind"], columns["gaps"][:, 0], columns["numbers"][:, 0]
    last = np.zeros(len(known), dtype=bool)
    last[tokens.offsets[1:] - 1] = True
    there = _tensor(np.append(known[1:], False) & ~last)
    return {
        "next_kind": torch.where(there, kind.roll(-1), -1),
        "next_gap": torch.where(there, gap.roll(-1), torch.nan),
        "next_amount": torch.where(there, amount.roll(-1), torch.nan),
    }


def _tensor(array: NDArray[Any]) -> Tensor:
    """A copy; columns that are mapped from files cannot be shared."""
    return torch.tensor(np.asarray(array))


def ranges(starts: Ints, lengths: Ints) -> Ints:
    """The indices from each start on, one run after the other."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


@dataclass(frozen=True)
class Sampler:
    """Which customers go into a batch together: those of about the same length, with about so many readouts.

    Attributes:
        lengths: (P,) tokens.
        counts: (P,) readouts.
        readouts_per_batch: At most, but for a customer who has more alone.
        tokens_per_batch: At most, padding included, but for a customer who has more alone.
        seed: Of the shuffling.
    """

    lengths: Ints
    counts: Ints
    readouts_per_batch: int = 1_024
    tokens_per_batch: int = 65_536
    seed: int = 0

    def epoch(self, number: int) -> list[Ints]:
        """The batches of one pass over all customers, in random order; the same for the same seed and number."""
        lot = np.random.default_rng([self.seed, number])
        batches = self._cut(np.log(self.lengths) + lot.uniform(0, LENGTHS_ALIKE, len(self.lengths)))
        return [batches[i] for i in lot.permutation(len(batches))]

    def in_order(self, alike: bool = False) -> list[Ints]:
        """The batches of one pass with no chance in it, short histories first.

        Args:
            alike: no batch has histories on both sides of a power of two, so that the next power is
                the same for a customer whoever shares the batch.
        """
        return self._cut(self.lengths, np.ceil(np.log2(np.maximum(self.lengths, 1))) if alike else None)

    def padding_waste(self, batches: list[Ints]) -> float:
        """Share of places that hold no token where each batch is padded to its longest history."""
        padded = sum(int(self.lengths[people].max()) * len(people) for people in batches)
        return 1 - sum(int(self.lengths[people].sum()) for people in batches) / padded if padded else 0.0

    def _cut(self, key: NDArray[Any], apart: NDArray[Any] | None = None) -> list[Ints]:
        """By rising key; customers that differ in `apart` are never together."""
        order = np.argsort(key, kind="stable")
        kinds = None if apart is None else apart[order]
        cuts, size, readouts = [], 0, 0
        longest = 0
        for place, who in enumerate(order.tolist()):
            size, readouts = size + 1, readouts + int(self.counts[who])
            longest = max(longest, int(self.lengths[who]))
            full = readouts > self.readouts_per_batch or size * longest > self.tokens_per_batch
            if size > 1 and (full or (kinds is not None and kinds[place] != kinds[place - 1])):
                cuts.append(place)
                size, readouts, longest = 1, int(self.counts[who]), int(self.lengths[who])
        return np.split(order, cuts) if len(order) else []
