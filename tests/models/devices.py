"""The devices that a test runs on: always the CPU, and with `-m gpu` a CUDA device, where there is one."""

from __future__ import annotations

import pytest
import torch

NO_GPU = "needs a CUDA device; torch.cuda.is_available() is false"
gpu = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU))
on_devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=gpu)])
