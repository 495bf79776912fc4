"""Half precision and the GPU against float32 on the CPU: attention, losses, and a whole forward pass."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from retinue.models import clocks as law
from retinue.models.attention import attend
from retinue.models.clocks import WIDTH, Clocks, clocks_from
from retinue.models.sequence_losses import next_order_loss, orders_loss, refund_loss, value_loss
from retinue.options import Encoder
from tests.models.devices import on_devices
from tests.models.histories import batch_of, history, network, shake

LENGTHS = (1, 7, 130, 2, 64)


def assert_near(found: Tensor, expected: Tensor, relative: float = 0.05, absolute: float = 0.03) -> None:
    """As near as bfloat16, which keeps eight bits, where nothing else is said."""
    torch.testing.assert_close(found.cpu(), expected, rtol=relative, atol=absolute)


def packed(device: str, kind: torch.dtype, seed: int = 0) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Queries, keys and values of four heads of 16, and where customers begin."""
    rng = torch.Generator().manual_seed(seed)
    q, k, v = (
        torch.randn(sum(LENGTHS), 4, 16, generator=rng).to(device, kind).requires_grad_() for _ in range(3)
    )
    return (q, k, v), torch.tensor((0, *LENGTHS)).cumsum(0).int().to(device)


@on_devices
def test_half_precision_attention_is_the_padded_one(device: str) -> None:
    half, starts = packed(device, torch.bfloat16)
    full, there = packed("cpu", torch.float32)
    found, expected = attend(*half, starts, max(LENGTHS)), attend(*full, there, max(LENGTHS))
    assert_near(found.float(), expected)
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(5))
    torch.autograd.backward((found.float() * weight.to(device)).sum())
    torch.autograd.backward((expected * weight).sum())
    for narrow, wide in zip(half, full, strict=True):
        assert narrow.grad is not None
        assert wide.grad is not None
        assert_near(narrow.grad.float(), wide.grad)


@on_devices
def test_half_precision_attention_does_not_leak(device: str) -> None:
    (q, k, v), starts = packed(device, torch.bfloat16)
    before = attend(q, k, v, starts, max(LENGTHS))
    with torch.no_grad():
        for x in (q, k, v):
            x[8:138] += 1.0  # the third customer
    after = attend(q, k, v, starts, max(LENGTHS))
    changed = torch.zeros(sum(LENGTHS), dtype=torch.bool, device=device)
    changed[8:138] = True
    assert torch.equal(before[~changed], after[~changed])
    assert not torch.equal(before[changed], after[changed])


def every_loss(clocks: Clocks, device: str) -> Tensor:
    """The sum of the losses over what a batch may hold at its worst: same-day orders, decades, nothing, thousands."""
    rows = len(clocks.shape_log)
    before = torch.tensor([0.0, 400.0, 0.0, 3_650.0], device=device).repeat(rows // 4)
    until = torch.tensor([1.0, 401.0, 0.0, torch.inf], device=device).repeat(rows // 4)
    horizon = torch.tensor([[1.0, 30.0, 3_650.0]], device=device).expand(rows, -1)
    orders = torch.tensor([[0.0, 1.0, 2_000.0]], device=device).expand(rows, -1)
    gross = torch.tensor([[0.0, 1e-6, 1e7]], device=device).expand(rows, -1)
    losses = (
        next_order_loss(clocks, before, until), orders_loss(clocks, horizon, orders),
        value_loss(clocks, orders, gross), refund_loss(clocks, gross, gross / 2),
    )  # fmt: skip
    return torch.stack(losses)


@on_devices
def test_losses_of_half_precision_outputs_are_those_of_the_same_numbers_in_double(device: str) -> None:
    rng = torch.Generator().manual_seed(2)
    raw = (torch.randn(64, WIDTH, generator=rng) * 4).bfloat16()
    narrow = raw.to(device).requires_grad_()
    wide = raw.double().requires_grad_()
    found = every_loss(clocks_from(narrow, torch.zeros((), device=device)), device)
    expected = every_loss(clocks_from(wide, torch.zeros((), dtype=torch.float64)), "cpu")
    torch.testing.assert_close(found.double().cpu(), expected, rtol=2e-3, atol=1e-3)
    torch.autograd.backward(found.sum())
    assert narrow.grad is not None
    assert torch.isfinite(narrow.grad).all()


@on_devices
@pytest.mark.parametrize("encoder", list(Encoder))
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_a_forward_pass_is_the_same_on_every_device(device: str, encoder: Encoder, half: bool) -> None:
    batch = batch_of(*(history(seed, length) for seed, length in enumerate(LENGTHS)))
    net = shake(network(encoder, width=32), 4)
    with torch.no_grad():
        expected, after = net(batch)
        with torch.autocast(device, torch.bfloat16, enabled=half):
            clocks, said = net.to(device)(batch.to(torch.device(device)))
    days = torch.tensor([7.0, 90.0, 365.0])
    close = (0.1, 0.1) if half else (2e-4, 2e-5)
    assert_near(law.survival(clocks, days.to(device)), law.survival(expected, days), *close)
    for field in fields(after):
        found = getattr(said, field.name).float().cpu()
        if not half:
            assert_near(found, getattr(after, field.name), *close)
        assert torch.isfinite(found).all()
