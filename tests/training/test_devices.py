"""The data on a device, and training there: the same batch as on the CPU, and a loss that falls as it does in float32."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from retinue.options import Accelerator, Encoder, TrainerOptions
from retinue.sequences.resident import resident
from retinue.training.fit import fit_network
from tests.models.devices import NO_GPU, on_devices
from tests.training.made import small, task


@on_devices
def test_a_batch_is_gathered_on_the_device(device: str) -> None:
    made = task()
    there = resident(made.tokens, made.readouts, made.vocabulary, made.season, device)
    here = resident(made.tokens, made.readouts, made.vocabulary, made.season)
    people = torch.arange(len(here.lengths) - 1, -1, -2).numpy()
    found = there.batch(people, torch.Generator().manual_seed(1))
    expected = here.batch(people, torch.Generator().manual_seed(1))
    assert found.targets is not None
    assert expected.targets is not None
    for left, right in ((found, expected), (found.targets, expected.targets)):
        for field in fields(left):
            column = getattr(left, field.name)
            if isinstance(column, torch.Tensor):
                assert column.device.type == device
                torch.testing.assert_close(
                    column.cpu(), getattr(right, field.name), rtol=0, atol=0, equal_nan=True
                )


@on_devices
@pytest.mark.parametrize("encoder", list(Encoder))
def test_training_in_half_precision_follows_float32(device: str, encoder: Encoder) -> None:
    plain = small(steps=10)
    plain = replace(plain, model=replace(plain.model, encoder=encoder, dropout=0.0))
    kind = Accelerator.gpu if device == "cuda" else Accelerator.cpu
    asked = replace(plain, trainer=replace(plain.trainer, accelerator=kind, bf16=True, compile=False))
    found, expected = fit_network(task(), asked).curve["loss"], fit_network(task(), plain).curve["loss"]
    assert found.to_list() == pytest.approx(expected.to_list(), rel=0.02)
    assert found[-1] < found[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)
@pytest.mark.parametrize("recompute", [False, True])
def test_data_that_stay_on_the_host_teach_the_same(recompute: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent ahead on a stream of their own; in pieces and with numbers made again, too."""
    plain = replace(
        small(steps=12, buckets=4), trainer=TrainerOptions(accelerator=Accelerator.gpu, compile=False)
    )
    expected = fit_network(task(), plain)
    monkeypatch.setattr("retinue.accel.devices.STORE_SHARE", 0.0)
    made = task()
    assert resident(made.tokens, made.readouts, made.vocabulary, made.season, "cuda").home.type == "cpu"
    thrifty = replace(plain.trainer, recompute=recompute, accumulate=2 if recompute else 1)
    found = fit_network(made, replace(plain, trainer=thrifty))
    assert found.curve["loss"].to_list() == pytest.approx(expected.curve["loss"].to_list(), rel=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)
def test_compiled_by_default_it_learns_the_same() -> None:
    plain = small(steps=4)
    plain = replace(plain, model=replace(plain.model, dropout=0.0))
    found, expected = (
        fit_network(task(), replace(plain, trainer=TrainerOptions(accelerator=Accelerator.gpu, compile=said)))
        for said in (None, False)
    )
    assert found.curve["loss"].to_list() == pytest.approx(expected.curve["loss"].to_list(), rel=1e-3)
