"""Devices and processes: where a network trains, and how several processes train one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce

from clickseg_infer.errors import ConfigError

_PATIENCE = timedelta(hours=24)  # while the first process makes cases ready or validates


@dataclass(frozen=True)
class Place:
    """Where this process trains.

    Attributes:
        device: of the network.
        rank: this process's number; process 0 writes files and reports.
        processes: how many train together.
    """

    device: torch.device
    rank: int = 0
    processes: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0


def leads() -> bool:
    """Whether this is the first of the processes that `torchrun` started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def joined(device: str = "auto") -> Iterator[Place]:
    """Join the processes that `torchrun` started, or be the only one.

    Args:
        device: "auto" for a CUDA card where there is one, else the CPU; or a name of torch's.

    Raises:
        ConfigError: an unknown device, or one that is not here.
    """
    processes, rank = (int(os.environ.get(n, d)) for n, d in (("WORLD_SIZE", "1"), ("RANK", "0")))
    chosen = _device(device)
    if processes == 1:
        yield Place(chosen)
        return
    if chosen.type == "cuda" and chosen.index is None:
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield Place(chosen, rank, processes)
    finally:
        distributed.destroy_process_group()


def wait_for_all(place: Place) -> None:
    """Return when every process has come here."""
    if place.processes > 1:
        distributed.barrier()


def gathered(place: Place, values: list[Any]) -> list[Any]:
    """The values of all processes, in the order of their ranks."""
    if place.processes == 1:
        return values
    parts: list[Any] = [None] * place.processes
    distributed.all_gather_object(parts, values)
    return [value for part in parts for value in part]


def share_buffers(network: nn.Module, place: Place) -> None:
    """Give all processes the first one's running statistics, as they get its weights."""
    if place.processes > 1:
        for buffer in network.buffers():
            distributed.broadcast(buffer, 0)


def join_norms(network: nn.Module, place: Place) -> None:
    """Let batch normalisation look at the batches of all processes, in place.

    With gradients averaged by `DistributedDataParallel` it learns what one process with all their
    batches would. Parameters and buffers keep their names.
    """
    if place.processes == 1:
        return
    if place.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return
    for name, child in network.named_children():
        if isinstance(child, nn.BatchNorm3d):
            joint = _JointBatchNorm3d(child.num_features, child.eps, child.momentum)
            joint.load_state_dict(child.state_dict())
            setattr(network, name, joint)
        else:
            join_norms(child, place)


class _JointBatchNorm3d(nn.BatchNorm3d):
    """Batch normalisation over all processes' batches; torch's own SyncBatchNorm needs CUDA."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.float()
        axes, count = (0, 2, 3, 4), x.numel() // x.shape[1] * distributed.get_world_size()
        sums = torch.stack([wide.sum(axes), (wide * wide).sum(axes)])
        mean, square = all_reduce(sums) / count
        variance = square - mean * mean
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            momentum = self.momentum or 0.0
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * (count / max(1, count - 1)), momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        shape = (1, -1, 1, 1, 1)
        return (wide * scale.view(shape) + shift.view(shape)).to(x.dtype)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"the device {name!r} cannot be used: {reason}") from error
    return device
