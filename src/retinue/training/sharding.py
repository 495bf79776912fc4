"""Weights that are split among processes (FSDP2), and whole again. The only file that knows of split tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from retinue.models.clocks import WIDTH
from retinue.models.encoders import TransformerEncoder
from retinue.models.network import Network
from retinue.training.ema import put_on


def split(network: Network, mesh: DeviceMesh) -> None:
    """Splits the weights among the processes of a mesh; a transformer gathers those of one block at a time."""
    if isinstance(network.encoder, TransformerEncoder):
        for block in network.encoder.blocks:
            fully_shard(block, mesh=mesh)
    # gathered anew for each pass, since other weights are put in between two of them
    fully_shard(network, mesh=mesh, reshard_after_forward=True)


def split_like(tensor: Tensor, weight: Tensor) -> Tensor:
    """A tensor that all processes hold whole, on the device of a weight and split as that is."""
    tensor = tensor.to(weight.device)
    if not isinstance(weight, DTensor):
        return tensor
    return distribute_tensor(tensor, weight.device_mesh, weight.placements, src_data_rank=None)


def whole(tensor: Tensor) -> Tensor:
    """A tensor as it is before it is split; every process must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def wearing(network: Network, weights: Mapping[str, Tensor], device: torch.device) -> Network:
    """The network with other, whole weights on a device; one that was split is made anew."""
    worn = Network(network.shape, torch.zeros(WIDTH)) if isinstance(network, FSDPModule) else network
    put_on(worn, weights)
    return worn.to(device)
