"""Histories to states: no leak between customers or from the future, whatever the packing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from retinue.models.attention import attend, layout, longest_of, rotate, turns
from retinue.models.encoders import GRUEncoder, TransformerEncoder
from retinue.options import Encoder
from tests.models.histories import shake

LENGTHS = (3, 1, 7, 2)
STARTS = torch.tensor([0, 3, 4, 11, 13], dtype=torch.int32)
WIDTH = 16
ENCODERS = list(Encoder)


def encoder(kind: Encoder) -> GRUEncoder | TransformerEncoder:
    torch.manual_seed(0)
    made = GRUEncoder(WIDTH, 2, 0.0) if kind is Encoder.gru else TransformerEncoder(WIDTH, 2, 2, 0.0)
    return shake(made).eval()


def tokens(seed: int = 5) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(sum(LENGTHS), WIDTH, generator=rng), torch.rand(sum(LENGTHS), generator=rng) * 4


def customer(index: int) -> slice:
    return slice(int(STARTS[index]), int(STARTS[index + 1]))


def starts_of(*lengths: int) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


def test_tokens_go_to_their_place_and_back() -> None:
    table = layout(torch.tensor([0, 2, 2, 5], dtype=torch.int32), 5, 4)
    packed = torch.arange(1.0, 6.0)
    assert table.pad(packed).tolist() == [[1, 2, 0, 0], [0, 0, 0, 0], [3, 4, 5, 0]]
    assert torch.equal(table.unpad(table.pad(packed)), packed)
    assert longest_of(STARTS) == 7


def slow_attention(q: Tensor, k: Tensor, v: Tensor, starts: Tensor) -> Tensor:
    """Token by token, head by head."""
    out = torch.zeros_like(v)
    for first, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        for i in range(first, end):
            for head in range(q.shape[1]):
                seen = slice(first, i + 1)
                scores = k[seen, head] @ q[i, head] / math.sqrt(q.shape[-1])
                out[i, head] = scores.softmax(0) @ v[seen, head]
    return out


def test_attention_is_softmax_over_the_customers_own_past() -> None:
    q, k, v = torch.randn(3, sum(LENGTHS), 2, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        attend(q, k, v, STARTS, 7), slow_attention(q, k, v, STARTS), rtol=1e-5, atol=1e-6
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: the varlen kernel cannot run")
def test_the_packed_kernel_on_a_gpu_gives_the_padded_result() -> None:
    q, k, v = torch.randn(3, sum(LENGTHS), 2, 64, generator=torch.Generator().manual_seed(0))
    on_gpu = [x.cuda().bfloat16() for x in (q, k, v)]
    packed = attend(on_gpu[0], on_gpu[1], on_gpu[2], STARTS.cuda(), 7)
    torch.testing.assert_close(packed.float().cpu(), attend(q, k, v, STARTS, 7), rtol=2e-2, atol=2e-2)


def test_rotation_knows_differences_of_position_only() -> None:
    q, k = torch.randn(2, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    periods = torch.logspace(0, 3, 4)

    def product(of_q: float, of_k: float) -> float:
        at_q, at_k = (turns(torch.tensor([at]), periods) for at in (of_q, of_k))
        return float((rotate(q, at_q) * rotate(k, at_k)).sum())

    assert product(5.0, 2.0) == pytest.approx(product(13.5, 10.5), abs=1e-5)
    assert product(5.0, 2.0) != pytest.approx(product(5.0, 3.0), abs=1e-2)
    assert rotate(q, turns(torch.zeros(1), periods)).tolist() == q.tolist()


@pytest.mark.parametrize("kind", ENCODERS)
def test_packed_customers_get_the_states_they_have_alone(kind: Encoder) -> None:
    x, gap = tokens()
    together = encoder(kind)(x, gap, STARTS, 7)
    for index, length in enumerate(LENGTHS):
        own = customer(index)
        alone = encoder(kind)(x[own], gap[own], starts_of(length), length)
        torch.testing.assert_close(together[own], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ENCODERS)
def test_another_customer_changes_no_bit(kind: Encoder) -> None:
    x, gap = tokens()
    other_x, other_gap = tokens(seed=6)
    mixed_x, mixed_gap = other_x.clone() * 100, other_gap.clone() * 100
    mine = customer(2)
    mixed_x[mine], mixed_gap[mine] = x[mine], gap[mine]
    model = encoder(kind)
    before, after = model(x, gap, STARTS, 7), model(mixed_x, mixed_gap, STARTS, 7)
    assert torch.equal(before[mine], after[mine])
    assert not torch.isclose(before[customer(0)], after[customer(0)]).all()


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_future_changes_no_bit(kind: Encoder) -> None:
    x, gap = tokens()
    changed, changed_gap = x.clone(), gap.clone()
    changed[8:11], changed_gap[8:11] = 9.0, 3.0  # the third customer's tokens from its fifth on
    model = encoder(kind)
    before, after = model(x, gap, STARTS, 7), model(changed, changed_gap, STARTS, 7)
    assert torch.equal(before[4:8], after[4:8])
    assert not torch.isclose(before[8:11], after[8:11]).all()


@pytest.mark.parametrize("kind", ENCODERS)
def test_padding_and_order_of_customers_change_nothing(kind: Encoder) -> None:
    x, gap = tokens()
    model = encoder(kind)
    before = model(x, gap, STARTS, 7)
    torch.testing.assert_close(model(x, gap, STARTS, 9), before, rtol=1e-5, atol=1e-6)
    order = [3, 2, 0, 1]
    moved = torch.cat([torch.arange(sum(LENGTHS))[customer(i)] for i in order])
    shuffled = model(x[moved], gap[moved], starts_of(*(LENGTHS[i] for i in order)), 7)
    torch.testing.assert_close(shuffled, before[moved], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_customer_without_tokens_disturbs_nobody(kind: Encoder) -> None:
    x, gap = tokens()
    model = encoder(kind)
    with_empty = torch.tensor([0, 3, 3, 4, 11, 13, 13], dtype=torch.int32)
    torch.testing.assert_close(model(x, gap, with_empty, 7), model(x, gap, STARTS, 7), rtol=1e-5, atol=1e-6)


def test_a_gru_steps_where_padding_would_cost_too_much() -> None:
    """One long history among many short ones: the same states as on the padded table, and the same gradient."""
    lengths = (60, *[1] * 40)
    x = torch.randn(sum(lengths), WIDTH, generator=torch.Generator().manual_seed(2), requires_grad=True)
    model, starts = encoder(Encoder.gru), starts_of(*lengths)
    assert isinstance(model, GRUEncoder)
    table = layout(starts, len(x), 60)
    stepped, padded = model(x, x[:, 0], starts, 60), table.unpad(model.gru(table.pad(x))[0])
    torch.testing.assert_close(stepped, padded, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(states.square().sum(), x)[0] for states in (stepped, padded)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_a_transformer_knows_time() -> None:
    x, gap = tokens()
    model = encoder(Encoder.transformer)
    slower = gap.clone()
    slower[5] += 3.0
    states, other = model(x, gap, STARTS, 7), model(x, slower, STARTS, 7)
    assert torch.equal(states[4], other[4])
    assert not torch.isclose(states[5], other[5]).all()


def test_the_length_of_others_changes_no_bit_up_to_the_next_power_of_two() -> None:
    made = TransformerEncoder(32, 2, 2, 0.0).eval()
    lot = torch.Generator().manual_seed(1)
    x, gaps = torch.randn(512, 32, generator=lot), torch.rand(512, generator=lot)
    lengths = (140, 150, 200)
    said = []
    with torch.no_grad():
        for others in ((140,), (140, 150), (140, 150, 200)):
            starts, tokens = starts_of(*others), sum(others)
            said.append(made(x[:tokens], gaps[:tokens], starts, max(others))[: lengths[0]])
    assert torch.equal(said[0], said[1])
    assert torch.equal(said[0], said[2])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", ENCODERS)
def test_eager_and_compiled_agree(kind: Encoder) -> None:
    x, gap = tokens()
    model = encoder(kind)
    compiled = torch.compile(model)
    torch.testing.assert_close(compiled(x, gap, STARTS, 7), model(x, gap, STARTS, 7), rtol=1e-4, atol=1e-5)
