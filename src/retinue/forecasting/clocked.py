"""What a network's clocks say of customers at a cutoff, as a rung: outlooks, log odds and waits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import torch
from torch import Tensor

from retinue.accel.processes import one_thread, side_by_side
from retinue.forecasting.outlook import Array, Outlook, Values, logit
from retinue.models import clocks as law
from retinue.models.btyd import LONGEST_WAIT_DAYS
from retinue.models.clocks import Clocks
from retinue.models.encoders import GRUEncoder
from retinue.models.network import Network
from retinue.models.reading import LEAST_ROWS, GRUReader
from retinue.schema import CUSTOMER, CUTOFF
from retinue.sequences.readouts import Readouts, local_day
from retinue.sequences.resident import Resident, Sampler, resident
from retinue.sequences.tokens import Ints, Tokens
from retinue.training.checkpoint import Trained

DAYS_PER_YEAR = 365.25
# what is padded to tables does best in small ones, which hold less padding and stay in the cache
READOUTS_PER_BATCH, TOKENS_PER_BATCH = 1_024, 8_192
READ_TOGETHER = (2_048, 32_768)  # with a reader, which takes its rows a cacheful at a time
ON_A_GPU = (65_536, 2_097_152)  # which is idle between small ones; not measured yet
CONTEXT_CUSTOMERS = 2_048


class Clocked(ABC):
    """A trained network as a rung; how it comes by its states is for its kinds to say."""

    trained: Trained
    latest: list[tuple[pl.DataFrame, Clocks]]

    @property
    @abstractmethod
    def zone(self) -> str:
        """Where days are read."""

    @abstractmethod
    def read(self, buyers: pl.DataFrame) -> Clocks:
        """What the network says of each buyer, in float64, in the order of the rows."""

    def outlook(self, buyers: pl.DataFrame, horizons: Sequence[int], discount_rate_yearly: float) -> Outlook:
        """The outlook at each horizon."""
        said = self._clocks(buyers)
        days = self._business(buyers, horizons)
        p_churn = _across(law.survival(said, days))
        orders = np.maximum(_across(law.expected_orders(said, days)), 1 - p_churn)
        discounted = _across(law.discounted_orders(said, days, discount_rate_yearly / DAYS_PER_YEAR))
        kept = (1 - law.refund_share(said)) * self.trained.vocabulary.order_value
        mean, variance = law.value_mean(said) * kept, law.value_variance(said) * kept**2
        return Outlook(
            p_churn=p_churn,
            orders=orders,
            shape=_across(law.orders_shape(said, days)),
            discount=np.divide(discounted, orders, where=orders > 0, out=np.ones_like(orders)),
            values=Values(mean.numpy(), (mean**2).numpy(), variance.numpy()),
        )

    def log_odds(self, buyers: pl.DataFrame, days: Sequence[float]) -> Array:
        """Log odds of an order within so many days, (days, rows)."""
        chance = law.log_order_chance(self._clocks(buyers), self._business(buyers, days)).exp()
        return logit(_across(chance))

    def next_order_days(self, buyers: pl.DataFrame) -> Array:
        """Median wait for the next order, (rows,), NaN where more likely never."""
        wait = law.median_wait(self._clocks(buyers)).numpy()
        days = np.arange(LONGEST_WAIT_DAYS + 1.0)
        business = self._business(buyers, days)[0].numpy()
        return np.where(wait > business[-1], np.nan, np.interp(wait, business, days))

    def _business(self, buyers: pl.DataFrame, days: Sequence[float] | Array) -> Tensor:
        """Business days after the cutoff, (1, H)."""
        cutoff = local_day(buyers[CUTOFF][0], self.zone)
        return torch.from_numpy(self.trained.season.business_days(cutoff, np.asarray(days, np.float64)))[None]

    def _clocks(self, buyers: pl.DataFrame) -> Clocks:
        """The last answer is kept."""
        if not (self.latest and self.latest[0][0] is buyers):
            self.latest[:] = [(buyers, self.read(buyers))]
        return self.latest[0][1]


def read_clocks(trained: Trained, tokens: Tokens, readouts: Readouts, context: Tensor | None) -> Clocks:
    """What the network says of each readout, in their order, in float64; on a CPU whoever else is asked about.

    Args:
        trained: the network.
        tokens: of all customers of the readouts.
        readouts: all at one cutoff.
        context: of `context_of`, where the network asks for one.
    """
    device = device_of(trained.network)
    data = resident(tokens, readouts, trained.vocabulary, device=device)
    context = None if context is None else context.to(device)  # another process may have made it
    return said_of_all(trained.network, data, context)


def said_of_all(network: Network, data: Resident, context: Tensor | None = None) -> Clocks:
    """What the network says of each readout, in their order, in float64, on the host."""
    on_cpu = data.device.type == "cpu"
    reader = reader_of(network)
    padded = (READOUTS_PER_BATCH, TOKENS_PER_BATCH) if on_cpu else ON_A_GPU
    at_once = READ_TOGETHER if isinstance(reader, GRUReader) else padded

    def said(people: Ints) -> Clocks:
        batch = data.batch(people)
        return network.read(reader.states_at(batch), batch, context)

    batches = Sampler(data.lengths, data.counts, *at_once).in_order(alike=True)
    return said_in_batches(said, batches, data.rows, on_cpu)


def reader_of(network: Network) -> GRUReader | Network:
    """What reads histories soonest: for a GRU on a CPU not the network itself."""
    on_cpu = device_of(network).type == "cpu"
    return GRUReader(network) if on_cpu and isinstance(network.encoder, GRUEncoder) else network


def said_in_batches(
    said: Callable[[Ints], Clocks], batches: Sequence[Ints], rows: Callable[[Ints], Ints], on_cpu: bool
) -> Clocks:
    """What is said of each batch, in the order of their rows, in float64, on the host; on a CPU side by side."""
    # products of fewer rows round otherwise: whoever is alone in a batch is there several times
    whole = [np.pad(people, (0, max(0, LEAST_ROWS - len(people))), "edge") for people in batches]
    quietly = torch.inference_mode()(said)  # each thread is asked anew
    parts = side_by_side(quietly, whole) if on_cpu else [quietly(people) for people in whole]
    places = np.concatenate([rows(people) for people in whole])
    return joined(parts, torch.from_numpy(np.unique(places, return_index=True)[1]))


@one_thread()
@torch.inference_mode()
def context_of(trained: Trained, tokens: Tokens, readouts: Readouts) -> Tensor | None:
    """What the network is told of the base: its 2,048 customers of lowest code; None where it asks for nothing.

    Args:
        trained: the network.
        tokens: of all customers of the readouts.
        readouts: at one cutoff, sorted by customer; those behind the lowest codes are not looked at.
    """
    network = trained.network
    if network.readout.context is None:
        return None
    some = readouts.take(np.arange(min(CONTEXT_CUSTOMERS, len(readouts))))
    data: Resident = resident(tokens, some, trained.vocabulary, device=device_of(network))
    batch = data.batch(np.arange(len(data.lengths)))
    return network.summarise(reader_of(network).states_at(batch), batch)


def device_of(network: Network) -> torch.device:
    """Where the network stands; what it reads must be there too."""
    return network.power_raw.device


def by_customer(buyers: pl.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The rows in the order of customer codes, (rows,)."""
    return np.argsort(buyers[CUSTOMER].to_numpy(), kind="stable")


def joined(parts: Sequence[Clocks], place: Tensor) -> Clocks:
    """Clocks of several batches as one, in the order of `place`, in float64, on the host."""
    columns = {}
    for name, value in vars(parts[0]).items():
        rows = torch.cat([getattr(part, name) for part in parts]).cpu()[place] if value.ndim else value
        columns[name] = rows.double().cpu()
    return Clocks(**columns)


def _across(values: Tensor) -> Array:
    """(rows, horizons) as (horizons, rows)."""
    return values.numpy().T.copy()
