"""What a network reads and is judged by: packed histories, readouts at cutoffs, and the future seen after them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from retinue.schema import InputError


class _Moves:
    """A dataclass of tensors that moves to a device as a whole."""

    def to(self, device: torch.device | str) -> Self:
        """The same tensors on `device`."""
        return self._each(lambda tensor: tensor.to(device))

    def sent(self, device: torch.device) -> Self:
        """The same tensors on a GPU, by way of pinned memory, so that nothing waits for them but what uses them."""
        return self._each(lambda tensor: tensor.pin_memory().to(device, non_blocking=True))

    def used_on(self, stream: torch.cuda.Stream) -> None:
        """Keeps the memory of the tensors until a stream other than the one that made them is done with it."""

        def kept(tensor: Tensor) -> Tensor:
            tensor.record_stream(stream)
            return tensor

        self._each(kept)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        changed: dict[str, Any] = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, _Moves):
                changed[field.name] = value._each(change)
            elif value is not None:
                changed[field.name] = change(value)
        return replace(self, **changed)  # type: ignore[type-var]


def _check(owner: object, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise `InputError` for the first tensor whose shape is not the one named; -1 fits any size."""
    for name, expected in shapes.items():
        found = tuple(getattr(owner, name).shape)
        fits = len(found) == len(expected) and all(w in (-1, f) for f, w in zip(found, expected, strict=True))
        if not fits:
            raise InputError(
                f"{type(owner).__name__.lower()}: {name} must have shape {expected}, not {found}; -1 is any size"
            )


@dataclass(frozen=True)
class Targets(_Moves):
    """What came after each of R readouts, at H horizons each, and after each of N tokens.

    Times are in business days (see season.py), money in units of the base's median order value.
    """

    window: Tensor  # (R,) observed future, business days, > 0
    before: Tensor  # (R,) the next order came after more than this many business days …
    until: Tensor  # (R,) … and by this many; inf where none came within the window (before == window then)
    horizon: Tensor  # (R, H) business days, each <= window
    orders: Tensor  # (R, H) float, local days with an order, as evaluation.realised counts them
    gross: Tensor  # (R, H) sum of positive order amounts
    refunds: Tensor  # (R, H) sum of what came back, >= 0
    next_kind: Tensor  # (N,) long, kind of the customer's next token in training time; -1 where none is known
    next_gap: Tensor  # (N,) log1p days to it; NaN where none is known
    next_amount: Tensor  # (N,) its unit-free number 0; NaN where none is known

    def check(self, readouts: int, tokens: int) -> Self:
        """These targets, once their shapes fit `readouts` and `tokens`; raises `InputError` otherwise."""
        row, grid, token = (readouts,), (readouts, self.horizon.shape[-1]), (tokens,)
        _check(
            self,
            {
                **dict.fromkeys(("window", "before", "until"), row),
                **dict.fromkeys(("horizon", "orders", "gross", "refunds"), grid),
                **dict.fromkeys(("next_kind", "next_gap", "next_amount"), token),
            },
        )
        return self


@dataclass(frozen=True)
class Batch(_Moves):
    """C customers' histories packed into N tokens, and R readouts of them.

    Tokens are ordered by customer, then by the time they became available; a readout at a cutoff sees the
    tokens of its customer up to `at`, and nothing else.
    """

    kind: Tensor  # (N,) long, vocabulary index, 0 unknown
    codes: Tensor  # (N, F) long, vocabulary index, 0 none or unknown
    numbers: Tensor  # (N, K) float, unit-free, signed log1p of amount / median order first; NaN where null
    gaps: Tensor  # (N, 3) log1p days since the previous token, log ratio to the base's median gap, log1p days late
    age: Tensor  # (N,) log1p days since the customer's first token
    calendar: Tensor  # (N, 6) sin, cos of day of week; of day of year, two harmonics
    cu_seqlens: Tensor  # (C + 1,) int32, where each customer's tokens begin; last is N
    at: Tensor  # (R,) long, index into N of the last token available at the cutoff
    # log1p days since that token, log ratio to the base's median gap, log1p days since the last order, log ratio
    # of these to the customer's own mean order gap; NaN where there is none
    silence: Tensor  # (R, 4)
    cutoff_calendar: Tensor  # (R, 6) as `calendar`, of the cutoff
    features: Tensor  # (R, D) float, features/ at the cutoff, NaN where null
    base: Tensor  # (R,) long, which base the readout belongs to
    targets: Targets | None = None
    group: Tensor | None = None  # (R,) long, which of the batch's cutoffs it is, from 0; for the context only
    anchor: Tensor | None = (
        None  # (R, A) float, the forecast that an anchored network corrects, see models/clocks.py
    )

    def check(self) -> Self:
        """This batch, once its shapes fit each other; raises `InputError` otherwise."""
        n, r = self.kind.shape[0], self.at.shape[0]
        _check(
            self,
            {
                "kind": (n,), "codes": (n, -1), "numbers": (n, -1), "gaps": (n, 3), "age": (n,),
                "calendar": (n, 6), "cu_seqlens": (-1,), "at": (r,), "silence": (r, 4),
                "cutoff_calendar": (r, 6), "features": (r, -1), "base": (r,),
            },
        )  # fmt: skip
        if self.group is not None:
            _check(self, {"group": (r,)})
        if self.anchor is not None:
            _check(self, {"anchor": (r, -1)})
        if self.targets is not None:
            self.targets.check(r, n)
        return self
