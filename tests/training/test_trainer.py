"""What a trainer is made of, from what is asked and what is there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy

from retinue.config import resolve
from retinue.options import TrainerOptions
from retinue.schema import InputError
from retinue.training.trainer import compiles, is_sharded, trainer_of

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def of(*words: str) -> TrainerOptions:
    return resolve(words).trainer


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ((), SingleDeviceStrategy),
        (("trainer=ddp",), DDPStrategy),
        (("trainer=fsdp",), ModelParallelStrategy),
        (("trainer=fsdp", "trainer.devices=1"), SingleDeviceStrategy),
        (("trainer=fsdp", "trainer.devices=1", "trainer.nodes=2"), ModelParallelStrategy),
    ],
)
def test_weights_are_split_among_several_processes_alone(words: tuple[str, ...], kind: type) -> None:
    options = resolve([*words, "trainer.accelerator=cpu", "trainer.accumulate=3"])
    trainer = trainer_of(options.trainer, options.training)
    assert type(trainer.strategy) is kind
    assert is_sharded(options.trainer) is (kind is ModelParallelStrategy)
    assert trainer.accumulate_grad_batches == 3


@pytest.mark.parametrize(
    ("words", "on_cpu", "on_gpu"),
    [
        ((), False, True),
        (("trainer=gpu",), False, True),
        (("trainer=ddp",), False, True),
        (("trainer=fsdp",), False, False),
        (("trainer.recompute=true",), False, False),
        (("trainer.compile=false",), False, False),
        (("trainer.compile=true",), True, True),
        (("trainer=fsdp", "trainer.compile=true"), True, True),
    ],
)
def test_compiled_on_a_gpu_unless_said_otherwise(
    words: tuple[str, ...], on_cpu: bool, on_gpu: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = tmp_path / "gcc"
    compiler.touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compiles(of(*words), CPU) is on_cpu
    assert compiles(of(*words), GPU) is on_gpu


def test_a_gpu_without_a_c_compiler_trains_uncompiled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert compiles(of(), GPU) is False
    assert compiles(of("trainer.compile=true"), CPU) is True
    with pytest.raises(InputError, match=r"trainer\.compile=true: no C compiler .* trainer\.compile=false"):
        compiles(of("trainer.compile=true"), GPU)
