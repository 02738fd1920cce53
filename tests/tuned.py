"""What heads must agree with: a whole network in torch, one of its feature maps scaled."""

import numpy as np
import torch
from clickseg_export.head import WithTensors, makers_of

from clickseg_infer.refinement.heads import POINTS
from clickseg_train.networks import DeepLabV3Plus


def tensors_of(network: DeepLabV3Plus, batch: torch.Tensor) -> dict[str, np.ndarray]:
    with torch.no_grad():
        _, *tensors = WithTensors(network)(batch)
    return {name: t.numpy() for name, t in zip(makers_of(network), tensors, strict=True)}


def tuned(
    network: DeepLabV3Plus, point: str, batch: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """The whole network's logits (z, y, x), a feature map scaled by a hook."""

    def adjusted(module: object, inputs: object, features: torch.Tensor) -> torch.Tensor:
        return features * scale[:, None, None, None] + bias[:, None, None, None]

    hook = makers_of(network)[POINTS[point]].register_forward_hook(adjusted)
    logits = network(batch)[0, 0]
    hook.remove()
    return logits
