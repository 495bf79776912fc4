"""Histories read for forecasts say what the network says of them, whoever else is read, and however often they grow."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from retinue.accel.processes import one_thread
from retinue.models import reading
from retinue.models.clocks import expected_orders, survival
from retinue.models.network import Network
from retinue.models.reading import GRUReader
from retinue.options import Encoder
from retinue.schema import InputError
from retinue.sequences.batches import Batch
from tests.models.histories import batch_of, history, network, neutral, rows_of, shake, shape

DAYS = torch.tensor([0.0, 1.0, 7.0, 30.0, 90.0, 365.0, 3_650.0])
LENGTHS = (1, 4, 9, 3, 33, 6, 2, 33)


def gru(layers: int = 2, width: int = 16) -> Network:
    return shake(network(layers=layers, width=width))


def base(lengths: tuple[int, ...] = LENGTHS) -> Batch:
    """Customers of these lengths, each read out at its first and at its last token."""
    return batch_of(*(history(50 + i, length, (0, length - 1)) for i, length in enumerate(lengths)))


def by_torch(model: Network, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return model.states_at(batch)


@pytest.mark.parametrize("rows_at_once", [1, 20, 1_024])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_states_are_those_of_the_network(
    layers: int, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "ROWS_AT_ONCE", rows_at_once)
    model, batch = gru(layers), base()
    wanted = by_torch(model, batch)
    assert wanted.std(0).min() > 0.1  # loud
    torch.testing.assert_close(GRUReader(model).states_at(batch), wanted, rtol=0, atol=2e-6)
    precise, exactly = GRUReader(model.double()), by_torch(model, batch)
    assert precise.states_at(batch).dtype == torch.float64
    # numbers are float32 all the same
    torch.testing.assert_close(precise.states_at(batch), exactly, rtol=0, atol=5e-7)


def test_numbers_out_of_range_kinds_and_codes_never_seen_are_read_alike() -> None:
    model, batch = gru(), base()
    numbers = batch.numbers.clone()
    numbers[::3, 0], numbers[1::3, 1], numbers[::2, 2] = torch.inf, -torch.inf, torch.nan
    odd = replace(
        batch,
        numbers=numbers,
        gaps=batch.gaps * 1e6 - 3.0,
        kind=torch.zeros_like(batch.kind),
        codes=torch.zeros_like(batch.codes),
    )
    torch.testing.assert_close(GRUReader(model).states_at(odd), by_torch(model, odd), rtol=0, atol=2e-6)


def test_a_base_without_codes_or_numbers_is_read() -> None:
    bare = replace(shape(), code_sizes=(), number_edges=torch.zeros(0, 5), feature_edges=torch.zeros(0, 5))
    model, batch = shake(Network(bare, neutral()).eval()), base()
    nothing = replace(
        batch, codes=batch.codes[:, :0], numbers=batch.numbers[:, :0], features=batch.features[:, :0]
    )
    found = GRUReader(model).states_at(nothing)
    torch.testing.assert_close(found, by_torch(model, nothing), rtol=0, atol=2e-6)


@pytest.mark.parametrize("width", [16, 20, 128])
def test_who_else_is_read_changes_no_bit(width: int) -> None:
    """Alone, or among many; products, gates and look-ups all do for a row what they do for it elsewhere."""
    reader = GRUReader(gru(2, width))
    lengths = tuple(
        int(length) for length in torch.randint(1, 40, (700,), generator=torch.Generator().manual_seed(0))
    )
    with one_thread():
        together = reader.states_at(base(lengths))
        for some in ([0], [1, 2], [3, 4, 5], [*range(6, 40)], [*range(40, 300)]):
            alone = batch_of(*(history(50 + i, lengths[i], (0, lengths[i] - 1)) for i in some))
            wanted = torch.cat([together[2 * i : 2 * i + 2] for i in some])
            assert torch.equal(reader.states_at(alone), wanted), some


def test_the_reader_keeps_the_weights_it_was_made_with() -> None:
    model, batch = gru(), base()
    reader = GRUReader(model)
    before = reader.states_at(batch)
    shake(model, seed=9)
    assert torch.equal(reader.states_at(batch), before)
    assert not torch.equal(GRUReader(model).states_at(batch), before)


def test_streaming_gives_the_full_replay() -> None:
    """States advanced by new events, some customers without any, forecast as the whole history does."""
    model = gru()
    reader = GRUReader(model)
    customers = [history(21, 5), history(22, 8), history(23, 3)]
    whole = batch_of(*customers)
    state = reader.start(3)
    steps = ((0, 4, 4, 5), (0, 1, 7, 8), (0, 2, 3, 3))
    for i in range(3):
        parts = [rows_of(c, slice(*at[i : i + 2])) for c, at in zip(customers, steps, strict=True)]
        state = reader.step(state, batch_of(*parts))
    assert torch.equal(state[-1], reader.states_at(whole))
    with torch.no_grad():
        streamed, replayed = model.read(state[-1], whole), model(whole)[0]
        torch.testing.assert_close(survival(streamed, DAYS), survival(replayed, DAYS), rtol=1e-5, atol=1e-7)
        orders = expected_orders(streamed, DAYS), expected_orders(replayed, DAYS)
    torch.testing.assert_close(*orders, rtol=1e-5, atol=1e-7)


def test_no_news_changes_nothing() -> None:
    reader = GRUReader(gru())
    nobody = batch_of(*(rows_of(history(i, 4), slice(0, 0)) for i in range(3)))
    state = torch.randn(2, 3, 16)
    assert torch.equal(reader.step(state, nobody), state)


def test_a_step_leaves_the_state_it_was_given_alone() -> None:
    reader = GRUReader(gru())
    state = torch.randn(2, len(LENGTHS), 16)
    before = state.clone()
    assert not torch.equal(reader.step(state, base()), before)
    assert torch.equal(state, before)


def test_a_kind_that_the_network_does_not_have_is_no_other_row_of_the_table() -> None:
    batch = base()
    with pytest.raises(AssertionError):
        GRUReader(gru()).states_at(replace(batch, kind=batch.kind + 5))


def test_a_transformer_cannot_be_read_so() -> None:
    with pytest.raises(InputError, match="encoder must be gru to stream, not transformer"):
        GRUReader(network(Encoder.transformer))
