"""A pretrained base model as a folder: the network's checkpoint, and beside it the amortised law and the prior's shape."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from retinue.events.store import written_whole
from retinue.models.amortised import AmortisedLaw
from retinue.schema import InputError
from retinue.sequences.base_sums import SUMMARY
from retinue.training.checkpoint import Trained, load_checkpoint

LAW = "law.safetensors"
SIZE = SUMMARY.index("log_customers")
QUANTILES = 201
_PRIOR = ("prior_middle", "prior_scale", "prior_axes", "prior_distances")


@dataclass(frozen=True)
class Prior:
    """What summaries of simulated bases look like, to tell how unlike them another one is.

    Attributes:
        middle: (D,) medians of the numbers.
        scale: (D,) their half-widths from the 5th to the 95th percentile, at least 0.05.
        axes: (D, D) whitening of the scaled and bounded deviations.
        distances: (QUANTILES,) of the simulated bases, ascending.
    """

    middle: Tensor
    scale: Tensor
    axes: Tensor
    distances: Tensor

    @classmethod
    def of(cls, inputs: Tensor) -> Prior:
        """Of (B, D) summaries, NaN where null."""
        low, middle, high = inputs.nanquantile(torch.tensor([0.05, 0.5, 0.95]), dim=0)
        middle = middle.nan_to_num()
        scale = ((high - low) / 2).nan_to_num().clamp(min=0.05)
        away = _away(inputs, middle, scale)
        covariance = away.T @ away / len(away)
        values, vectors = torch.linalg.eigh(covariance.double())
        axes = (vectors / (values + 0.05).sqrt()).float().contiguous()
        distances = (away @ axes).square().mean(1).sqrt()
        return cls(middle, scale, axes, distances.quantile(torch.linspace(0, 1, QUANTILES)))

    def unlikeness(self, inputs: Tensor) -> float:
        """Share of simulated bases that are less unusual than this one (D,); above 1 how many times as far as the last."""
        distance = float((_away(inputs[None], self.middle, self.scale) @ self.axes).square().mean().sqrt())
        far = float(self.distances[-1])
        if distance > far:
            return distance / far
        return float(np.searchsorted(self.distances.numpy(), distance) / (QUANTILES - 1))


def _away(inputs: Tensor, middle: Tensor, scale: Tensor) -> Tensor:
    away = ((inputs - middle) / scale).nan_to_num().clamp(-10.0, 10.0)
    away[:, SIZE] = 0.0  # a large base is like a small one, only surer
    return away


@dataclass(frozen=True)
class Pretrained:
    """A network that reads any base, the law that it corrects, and the prior that both have seen."""

    trained: Trained
    law: AmortisedLaw
    prior: Prior


def save_law(law: AmortisedLaw, prior: Prior, path: Path) -> None:
    """Writes the law and the prior as one safetensors file, whole or not at all."""
    tensors = {name: each.detach().contiguous() for name, each in law.state_dict().items()}
    columns = (prior.middle, prior.scale, prior.axes, prior.distances)
    with written_whole(path) as unfinished:
        save_file({**tensors, "edges": law.edges, **dict(zip(_PRIOR, columns, strict=True))}, unfinished)


def load_law(path: Path) -> tuple[AmortisedLaw, Prior]:
    """What `save_law` wrote.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    try:
        found = load_file(path)
        prior = Prior(*(found.pop(name) for name in _PRIOR))
        law = AmortisedLaw(found.pop("edges"))
        law.load_state_dict(found)
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"checkpoint={path.parent}: {path.name} cannot be read ({said}). Copy it again."
        ) from error
    return law.eval(), prior


def load_pretrained(folder: Path) -> Pretrained:
    """The base model of a folder.

    Raises:
        InputError: no finished one stands there.
    """
    return Pretrained(load_checkpoint(folder), *load_law(folder / LAW))
