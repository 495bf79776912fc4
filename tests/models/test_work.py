"""Operations that are said to be made are those that torch counts, where nothing is padded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from retinue.models.reading import GRUReader
from retinue.models.work import forward_operations, scoring_operations, training_operations
from tests.models.histories import batch_of, history, network, shake

LENGTHS = np.full(8, 6)


def in_place(_: tuple[int, ...], left: tuple[int, int], right: tuple[int, int], **__: object) -> int:
    """What torch's counter does not know: left @ right added to a matrix that is there."""
    return 2 * left[0] * left[1] * right[1]


def counter() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place})


@pytest.mark.parametrize("layers", [1, 2])
def test_operations_of_a_gru_are_those_that_torch_counts(layers: int) -> None:
    model, batch = shake(network(layers=layers)), batch_of(*(history(i, 6) for i in range(8)))
    with torch.no_grad(), counter() as forward:
        model(batch)
    assert forward.get_total_flops() == forward_operations(model, LENGTHS, 8)
    assert 3 * forward.get_total_flops() == training_operations(model, LENGTHS, 8)
    reader = GRUReader(model)
    with torch.no_grad(), counter() as scoring:
        model.read(reader.states_at(batch), batch)
    assert scoring.get_total_flops() == scoring_operations(model, LENGTHS, 8)
