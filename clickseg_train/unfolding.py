"""Normalisation for a network that was exported without it, so that it can be trained on."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_LEAST_SHARE = 0.1  # of the layer's mean variance, for a channel that hardly ever does anything


def measure_norms(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give every batch normalisation the statistics of what it normalises, in place.

    Scale and shift are set against them: in evaluation the network computes what it did before, and
    in training about that, instead of something else altogether. Kernels before a normalisation get
    the size that they are drawn with: folded ones can be so small that a hundred steps of an
    optimiser, which moves all weights by about its rate, would make other kernels of them. Parts
    that the batches do not reach stay as they are.

    Args:
        network: whose normalisations do not normalise yet (mean 0, variance 1).
        batches: network input (N, C, z, y, x), alike what it will be trained on.
    """
    sums: dict[nn.BatchNorm3d, list[Tensor]] = {}

    def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm3d)
        values = inputs[0].double()
        count = torch.tensor(values.numel() / values.shape[1])
        axes = (0, 2, 3, 4)
        sums.setdefault(norm, []).append(
            torch.stack([count.expand(values.shape[1]), values.sum(axes), (values**2).sum(axes)])
        )

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm3d)]
    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    training = network.training
    network.eval()
    with torch.no_grad():
        for batch in batches:
            network(batch)
        for hook in hooks:
            hook.remove()
        for norm, found in sums.items():
            count, total, square = torch.stack(found).sum(0)
            mean = total / count
            variance = square / count - mean**2
            variance = variance.clamp(min=max(1e-6, _LEAST_SHARE * float(variance.mean())))
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()  # as computed until now
            shift = norm.bias - norm.running_mean * scale
            norm.weight.copy_(scale * (variance + norm.eps).sqrt())
            norm.bias.copy_(shift + mean * scale)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
        for module in network.modules():
            if isinstance(module, nn.Sequential) and len(module) == 2:
                kernels, behind = module
                if isinstance(kernels, nn.Conv3d) and behind in sums:
                    _as_drawn(kernels, behind)
    network.train(training)


def _as_drawn(kernels: nn.Conv3d, norm: nn.BatchNorm3d) -> None:
    """Kernels as large as He et al. 2015 draw them, and the normalisation that undoes it."""
    assert kernels.bias is None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    drawn = math.sqrt(2 / kernels.weight[0].numel())
    size = kernels.weight.pow(2).mean((1, 2, 3, 4)).sqrt()
    factor = torch.where(size > 0, drawn / size, torch.ones_like(size))
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt() / factor
    kernels.weight.mul_(factor[:, None, None, None, None])
    norm.running_mean.mul_(factor)
    norm.running_var.mul_(factor**2)
    norm.weight.copy_(scale * (norm.running_var + norm.eps).sqrt())
