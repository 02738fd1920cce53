"""Does the exported model compute what its network computes? And one of fewer bits?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.engines import Engine, Network, open_engine
from clickseg_infer.errors import ParityError
from clickseg_infer.model_spec import ModelSpec
from clickseg_infer.network_input import fill_click_channels

if TYPE_CHECKING:
    from torch import nn

TOLERANCE = 1e-4
"""The largest difference of a logit that passes, engine against torch, both in float32, where
logits are below 10; a hundred-thousandth of the largest where they are not."""

MOST_FLIPPED = 1e-3
"""The largest fraction of voxels whose side of the threshold half-precision weights may change."""

CHECKED_BY = {"float16": "onnxruntime", "int8": "openvino"}
"""What runs a graph of fewer bits on a CPU; ONNX Runtime rounds to 16 bits between layers."""


@dataclass(frozen=True)
class Parity:
    """What a comparison found.

    Attributes:
        largest: the largest difference of a logit between the engine and torch.
        rounding: the largest difference between torch with the stored and with the trained weights;
            0 unless weights are stored in half precision.
        flipped: the fraction of voxels whose side of the threshold that rounding changed.
        gradients: the largest relative difference of the heads' gradients from torch's; None of a
            model without heads.
        structures: the largest difference of a structure's chance; None of a model that knows none.
    """

    largest: float
    rounding: float = 0.0
    flipped: float = 0.0
    gradients: float | None = None
    structures: float | None = None


@dataclass(frozen=True)
class Agreement:
    """How far a model of fewer bits is from the float32 model that it was made of.

    Attributes:
        engine: that ran both.
        largest: the largest difference of a logit.
        flipped: the fraction of voxels whose side of the threshold changed.
    """

    engine: str
    largest: float
    flipped: float


def check_parity(engine: Engine, stored: nn.Module, trained: nn.Module, spec: ModelSpec) -> Parity:
    """Compare an engine with the network whose weights it stores, and that with the trained one.

    Raises:
        ParityError: a logit differs by more than TOLERANCE allows, or rounding the weights changes
            more than MOST_FLIPPED of the voxels.
    """
    import torch

    batch = example_batch(spec)
    answer = engine.run(batch)
    with torch.no_grad():
        expected = stored(torch.from_numpy(batch)).numpy()
        original = trained(torch.from_numpy(batch)).numpy()
    if answer.shape != expected.shape:
        raise ParityError(f"the exported model gives {answer.shape}, torch {expected.shape}")
    largest = float(np.abs(answer - expected).max())
    allowed = allowed_difference(expected)
    if not largest <= allowed:  # also refuses NaN
        raise ParityError(
            f"{engine.name} and torch differ by up to {largest:.2e} in a logit, "
            f"allowed is {allowed:.1e}"
        )
    limit = spec.threshold_logit
    flipped = float(np.mean((expected > limit) != (original > limit)))
    if not flipped <= MOST_FLIPPED:
        raise ParityError(
            f"16-bit weights change {flipped:.3%} of the voxels, allowed is {MOST_FLIPPED:.1%}"
        )
    return Parity(largest, float(np.abs(expected - original).max()), flipped)


def compare_models(before: tuple[ModelSpec, bytes], after: tuple[ModelSpec, bytes]) -> Agreement:
    """Run a float32 model and one of fewer bits on the same batch.

    Args:
        before: spec and file of the float32 model.
        after: spec and file of the other.

    Raises:
        EngineError: the engine that runs it on a CPU is not there.
    """
    name = CHECKED_BY[after[0].precision]
    answers = []
    for spec, content in (before, after):
        engine = open_engine(
            Network(content, spec.patch_size, spec.precision), name, spec.precision
        )
        answers.append(engine.run(example_batch(spec)))
        engine.close()
    one, other = answers
    limit = before[0].threshold_logit
    flipped = float(np.mean((one > limit) != (other > limit)))
    return Agreement(name, float(np.abs(one - other).max()), flipped)


def allowed_difference(logits: NDArray[np.float32]) -> float:
    """By how much another engine's logits may differ from these, see TOLERANCE."""
    return TOLERANCE * max(1.0, float(np.abs(logits).max()) / 10)


def example_batch(spec: ModelSpec) -> NDArray[np.float32]:
    """Two patches (2, C, z, y, x) of random CT with clicks, encoded as the runtime does it."""
    rng = np.random.default_rng(0)
    size = spec.patch_size
    batch = np.zeros((2, len(spec.channels), *size), np.float32)
    for patch in batch:
        coarse = rng.uniform(-1.2, 1.2, [max(1, n // 8) for n in size]).astype(np.float32)
        ct = np.kron(coarse, np.ones((8, 8, 8), np.float32))
        ct += rng.normal(0, 0.05, size).astype(np.float32)
        patch[: len(spec.hu_windows)] = np.clip(ct, -1, 1)
        positive, negative = (
            [tuple(int(p) for p in rng.integers(size)) for _ in range(count)] for count in (2, 1)
        )
        previous = (ct > 0.5).astype(np.float32)
        fill_click_channels(spec, positive, negative, previous, patch)  # type: ignore[arg-type]
    return batch
