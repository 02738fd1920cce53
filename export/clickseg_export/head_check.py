"""Do a model's heads give the gradients that autograd and finite differences give?"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from clickseg_export.head import makers_of
from clickseg_export.head_graph import example_starts, tensors_of
from clickseg_export.parity import allowed_difference, example_batch
from clickseg_infer.engines import Network
from clickseg_infer.errors import ParityError
from clickseg_infer.model_spec import ModelSpec
from clickseg_infer.refinement.heads import POINTS, Head
from clickseg_infer.refinement.refiner import Refiner, open_refiner
from clickseg_infer.refinement.tuning import Tuning
from clickseg_infer.refinement.windows import WINDOW

if TYPE_CHECKING:
    from clickseg_train.networks import DeepLabV3Plus

TOLERANCE = 1e-4
"""The largest relative difference of a gradient that passes, in the Euclidean norm."""

_STEP = 1e-6  # of finite differences, in float64


def check_heads(
    network: DeepLabV3Plus,
    spec: ModelSpec,
    content: bytes,
    heads: Mapping[str, Head],
    engine: str,
) -> float:
    """Compare each head, run by an engine, with the whole network in torch.

    Args:
        network: with the weights that are stored, normalisation folded in.
        spec: of the model.
        content: the model file's.
        heads: of the model.
        engine: the name of what runs them.

    Returns:
        The largest relative difference of a gradient, from autograd or finite differences.

    Raises:
        ParityError: a gradient differs by more than TOLERANCE, or a logit by more than the
            exported network's may; or a head tunes what has no part in the logits.
        EngineError: the engine cannot run a head.
    """
    tensors = tensors_of(network, spec)
    largest = 0.0
    for point, head in heads.items():
        compiled = Network(content, spec.patch_size)
        refiner = open_refiner(compiled, head, point, engine, "float32")
        try:
            largest = max(largest, _checked(network, spec, refiner, tensors))
        finally:
            refiner.close()
    return largest


def _checked(
    network: DeepLabV3Plus,
    spec: ModelSpec,
    refiner: Refiner,
    tensors: Mapping[str, NDArray[np.float32]],
) -> float:
    rng, channels = np.random.default_rng(0), refiner.channels
    change = rng.normal(0, (0.2, 0.1), (channels, 2)).T.astype(np.float32)
    tuning = Tuning(1 + change[0], change[1])
    starts = example_starts(spec.patch_size)
    d_windows = rng.normal(0, 1, (len(starts), *WINDOW)).astype(np.float32)
    weights = np.zeros(spec.patch_size, np.float32)
    areas = [tuple(slice(s, s + n) for s, n in zip(at, WINDOW, strict=True)) for at in starts]
    for area, window in zip(areas, d_windows, strict=True):
        weights[area] += window
    windows = refiner.windows(tensors, starts)
    gradient = np.concatenate(windows.gradients(tuning, d_windows))
    scale, bias = (torch.from_numpy(v).requires_grad_() for v in (tuning.scale, tuning.bias))
    logits = _tuned(network, spec, refiner.point, scale, bias)
    (logits * torch.from_numpy(weights)).sum().backward()
    assert scale.grad is not None
    assert bias.grad is not None
    expected = np.concatenate([scale.grad.numpy(), bias.grad.numpy()]).astype(np.float64)
    plain = logits.detach().numpy()
    by_window = windows.logits(tuning) - np.stack([plain[area] for area in areas])
    worst = max(np.abs(refiner.all_logits(tensors, tuning) - plain).max(), np.abs(by_window).max())
    if not worst <= allowed_difference(plain):
        raise ParityError(f"the head {refiner.point} differs by up to {worst:.2e} in a logit")
    if not expected.any():
        raise ParityError(
            f"the head {refiner.point} cannot be checked: what it tunes does not reach the logits; "
            "a part of the network is at rest"
        )
    direction = expected / np.linalg.norm(expected)
    ahead, behind = (
        _weighted(network, spec, refiner.point, tuning, sign * _STEP * direction, weights)
        for sign in (1, -1)
    )
    slope = (ahead - behind) / (2 * _STEP)
    errors = {
        "autograd": float(np.linalg.norm(gradient - expected) / np.linalg.norm(expected)),
        "finite differences": float(abs(gradient @ direction - slope) / abs(slope)),
    }
    for reference, error in errors.items():
        if not error <= TOLERANCE:  # also refuses NaN
            raise ParityError(
                f"the gradients of the head {refiner.point} differ from {reference} by "
                f"{error:.1e} of their size, allowed is {TOLERANCE:.0e}"
            )
    return max(errors.values())


def _tuned(
    network: DeepLabV3Plus, spec: ModelSpec, point: str, scale: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """The network's logits (z, y, x) for the example, with features scaled at a point."""

    def adjusted(module: object, inputs: object, features: torch.Tensor) -> torch.Tensor:
        del module, inputs
        return features * scale[:, None, None, None] + bias[:, None, None, None]

    hook = makers_of(network)[POINTS[point]].register_forward_hook(adjusted)
    try:
        batch = torch.from_numpy(example_batch(spec)[:1]).to(scale.dtype)
        logits: torch.Tensor = network(batch)[0, 0]
        return logits
    finally:
        hook.remove()


def _weighted(
    network: DeepLabV3Plus,
    spec: ModelSpec,
    point: str,
    tuning: Tuning,
    step: NDArray[np.float64],
    weights: NDArray[np.float32],
) -> float:
    """The weighted sum of the logits a step away from a tuning, in float64."""
    scale, bias = np.split(np.concatenate([tuning.scale, tuning.bias]) + step, 2)
    with torch.no_grad():
        precise = copy.deepcopy(network).double()
        logits = _tuned(precise, spec, point, torch.from_numpy(scale), torch.from_numpy(bias))
        return float((logits * torch.from_numpy(weights)).sum())
