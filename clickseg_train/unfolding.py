"""Normalisation for a network that was exported without it, so that it can be trained on."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def measure_norms(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give every batch normalisation the statistics of what it normalises, in place.

    Scale and shift are set against them: in evaluation the network computes what it did before, and
    in training about that, instead of something else altogether.

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
            variance = (square / count - mean**2).clamp(min=1e-6)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()  # as computed until now
            shift = norm.bias - norm.running_mean * scale
            norm.weight.copy_(scale * (variance + norm.eps).sqrt())
            norm.bias.copy_(shift + mean * scale)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
    network.train(training)
