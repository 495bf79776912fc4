"""What in a customer's features and events speaks for churn, as the fitted rung itself counts it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from retinue.forecasting.blend import Blend
from retinue.forecasting.calibration import Recalibrated
from retinue.forecasting.clocked import READOUTS_PER_BATCH, context_of, device_of
from retinue.forecasting.outlook import Predictor
from retinue.forecasting.sequence import SequencePredictor
from retinue.forecasting.trees import FIRST_DAYS, Trees, matrix
from retinue.forecasting.tuned import TunedPredictor
from retinue.models import clocks as law
from retinue.models.network import Network
from retinue.schema import CUSTOMER, CUTOFF, EVENT_TIME, EVENT_TYPE
from retinue.sequences.batches import Batch
from retinue.sequences.readouts import local_day
from retinue.sequences.resident import Sampler, resident

Array = NDArray[np.float64]

POINTS = 12  # of the path; Gauss and Legendre's rule needs few
PART = "part"


def feature_parts(predictor: Predictor, buyers: pl.DataFrame) -> dict[str, Array]:
    """What each feature adds to the log odds of churn in the trees of a rung, (rows,) each; empty where it has none.

    Shapley values, exact for trees (Lundberg et al. 2020), as XGBoost finds them.

    Args:
        predictor: fitted.
        buyers: features of customers who have ordered, at one cutoff.
    """
    match predictor:
        case Recalibrated(inner, _):
            return feature_parts(inner, buyers)
        case Blend(one, other, weight):
            sides = (feature_parts(one, buyers), 1 - weight), (feature_parts(other, buyers), weight)
            added: dict[str, Array] = {}
            for parts, share in sides:
                for name, part in parts.items():
                    added[name] = added.get(name, np.zeros(buyers.height)) + share * part
            return added
        case Trees():
            first = predictor.first.outlook(buyers, FIRST_DAYS, 0.0)
            found = predictor.boosted.order_parts(matrix(buyers, predictor.columns, first))
            # the matrix has the first forecast behind the features; orders less likely is churn more likely
            return {name: -found[:, place] for place, name in enumerate(predictor.columns)}
    return {}


def event_parts(predictor: Predictor, buyers: pl.DataFrame, horizon_days: int) -> pl.DataFrame | None:
    """What each event adds to the log odds of churn in the network of a rung, other events and features as they are.

    Integrated gradients (Sundararajan, Taly and Yan 2017) over embedded events, from an event like the mean of those
    asked about; the parts of a customer's events add up to the difference that they make.

    Args:
        predictor: fitted.
        buyers: features of customers who have ordered, at one cutoff.
        horizon_days: of the churn.

    Returns:
        customer, event_time, event_type and part, a row per event known at the cutoff, customers ascending; None where
        no network reads the rung's events.
    """
    match predictor:
        case Recalibrated(inner, _):
            return event_parts(inner, buyers, horizon_days)
        case Blend(one, other, _):
            found = event_parts(one, buyers, horizon_days)
            return found if found is not None else event_parts(other, buyers, horizon_days)
        case SequencePredictor() | TunedPredictor():
            return _of_network(predictor, buyers, horizon_days)
    return None


def _of_network(
    rung: SequencePredictor | TunedPredictor, buyers: pl.DataFrame, horizon_days: int
) -> pl.DataFrame:
    cutoff = buyers[CUTOFF][0]
    trained, readouts, context = rung.trained, rung.readouts(buyers), rung.context
    if context is None:
        context = context_of(trained, rung.tokens, readouts)
    days = trained.season.business_days(local_day(cutoff, rung.zone), np.array([horizon_days], np.float64))
    device = device_of(trained.network)
    context = None if context is None else context.to(device)
    data = resident(rung.tokens, readouts, trained.vocabulary, device=device)
    places, parts = [], []
    for people in Sampler(data.lengths, data.counts, READOUTS_PER_BATCH).in_order():
        batch = data.batch(people)
        odds = partial(_log_odds, trained.network, batch, int(data.lengths[people].max()), context, days)
        with torch.no_grad():
            embedded = trained.network.embed(batch)
        parts.append(integrated(odds, embedded, embedded.mean(0, keepdim=True)))
        places.append(data.places(people))
    place = np.concatenate(places)
    tokens = rung.tokens
    kinds = pl.Series(tokens.kinds, dtype=pl.String)
    told = pl.DataFrame(
        {
            CUSTOMER: tokens.customer[tokens.owner[place]],
            EVENT_TIME: pl.Series(tokens.event[place]).cast(pl.Datetime("us", "UTC")),
            EVENT_TYPE: kinds.gather(pl.Series(tokens.kind[place], dtype=pl.UInt32)),
            PART: np.concatenate(parts),
            "place": place,
        }
    )
    return told.sort("place").drop("place")


def _log_odds(
    network: Network, batch: Batch, longest: int, context: Tensor | None, days: Array, embedded: Tensor
) -> Tensor:
    """Of churn, (R,), from embedded tokens (N, width)."""
    states = network.encoder(embedded, batch.gaps[:, 0], batch.cu_seqlens, longest)
    clocks = network.read(states.index_select(0, batch.at), batch, context)
    mass = law.log_hazard_mass(clocks, torch.from_numpy(days)[None].to(embedded))[:, 0].exp()
    return -mass - torch.log(-torch.expm1(-mass))


def integrated(odds: Callable[[Tensor], Tensor], embedded: Tensor, start: Tensor) -> Array:
    """What each row adds to the sum of the odds on the straight way from `start`, (N,).

    Args:
        odds: (N, width) to (R,).
        embedded: (N, width).
        start: (1, width) or (N, width).
    """
    nodes, weights = np.polynomial.legendre.leggauss(POINTS)
    total = torch.zeros_like(embedded)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        point = (start + float(node) * (embedded - start)).detach().requires_grad_()
        (slope,) = torch.autograd.grad(odds(point).sum(), point)
        total += float(weight) * slope
    return np.asarray(((embedded - start) * total).sum(1).double().cpu().numpy())
