"""RGB-BRS and DistMap-BRS: the network's input is changed until the answer agrees with the clicks.

What f-BRS is compared with. DistMap-BRS changes what is drawn from clicks, as Jang & Kim's BRS does
("Interactive Image Segmentation via Backpropagating Refinement Scheme", CVPR 2019); RGB-BRS changes
the scan, as in Sofiiuk et al. 2020 (https://arxiv.org/abs/2001.10331). The search is f-BRS's own,
but each evaluation is a forward and a backward pass of the whole network, in torch and float32.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from clickseg_infer.engines import Engine
from clickseg_infer.engines.shared import SharedEngine
from clickseg_infer.errors import EngineError
from clickseg_infer.file_grid import Index
from clickseg_infer.model import Model
from clickseg_infer.model_spec import ModelSpec
from clickseg_infer.refinement.refiner import Refiner, Windows
from clickseg_infer.refinement.tuning import Tuning
from clickseg_infer.refinement.windows import WINDOW

Floats = NDArray[np.float32]

METHODS = ("rgb-brs", "distmap-brs")


def with_input_brs(model: Model, network: nn.Module, method: str) -> Model:
    """A model that refines its answers by changing the network's input.

    Args:
        model: one that refines nothing; what is returned closes its engine.
        network: the same in torch and float32, in evaluation mode: (N, C, z, y, x) -> logits
            (N, 1, z, y, x). Not modified.
        method: one of METHODS.

    Raises:
        EngineError: an unknown method.
    """
    if method not in METHODS:
        raise EngineError(f"unknown refinement {method!r}, allowed are {', '.join(METHODS)}")
    engine = _WithInput(model.engine)
    return replace(model, engine=engine, refiner=InputRefiner(method, model.spec, engine, network))


def changed_channels(spec: ModelSpec, method: str) -> list[int]:
    """Which of the input's channels one of METHODS changes: those of the CT, or of the clicks."""
    windows = len(spec.hu_windows)
    if method == "rgb-brs":
        return list(range(windows))
    return [n for n, name in enumerate(spec.channels) if n >= windows and name != "previous"]


class _WithInput(SharedEngine):
    """An engine whose graph gives the network's input beside its logits."""

    def run_graph(self, inputs: Mapping[str, Floats]) -> dict[str, Floats]:
        """The input to its logits and a copy of itself; see `Engine.run_graph`."""
        batch = inputs["input"]
        return {"logits": self.run(batch), "input": batch.copy()}


class InputRefiner(Refiner):
    """Runs a network on its input with some of the channels changed.

    A `Tuning` here multiplies nothing, and adds its bias (K z y x,) to K channels of a patch. All
    logits come from the engine, so that they are those of the same precision as without a change;
    windows of them come from torch.

    Attributes:
        point: the method.
        channels: that are multiplied: 0.
        patch: the patch size (z, y, x).
    """

    def __init__(self, method: str, spec: ModelSpec, engine: Engine, network: nn.Module) -> None:
        self.point, self.channels, self.patch = method, 0, spec.patch_size
        self._changed = changed_channels(spec, method)
        self._engine, self._network = engine, network

    def change(self, begin: Tuning | None) -> NDArray[np.float64]:
        """Zero (K z y x,), wherever to begin: another click's input is another one."""
        del begin
        return np.zeros(len(self._changed) * math.prod(self.patch))

    def tuning(self, change: NDArray[np.float64]) -> Tuning:
        """The tuning that adds a change."""
        return Tuning(np.ones(0, np.float32), change.astype(np.float32))

    def all_logits(self, tensors: Mapping[str, Floats], tuning: Tuning) -> Floats:
        """The engine's logits (z, y, x) of the whole patch; see `Refiner.all_logits`."""
        return self._engine.run(self._input(tensors, tuning))[0, 0]

    def windows(self, tensors: Mapping[str, Floats], starts: Sequence[Index]) -> "InputWindows":
        """Windows to be asked for logits and gradients; see `Refiner.windows`."""
        given = partial(self._input, tensors)
        return InputWindows(self._network, given, self._changed, starts)

    def shared(self) -> "InputRefiner":
        """This one: its engine and torch take several threads."""
        return self

    def close(self) -> None:
        """Nothing to close: the engine is the model's."""

    def _input(self, tensors: Mapping[str, Floats], tuning: Tuning) -> Floats:
        batch = tensors["input"].copy()
        batch[0, self._changed] += tuning.bias.reshape(-1, *self.patch)
        return batch


class InputWindows(Windows):
    """The logits of N windows of one patch, as functions of the input; zero beyond the patch."""

    def __init__(
        self,
        network: nn.Module,
        given: Callable[[Tuning], Floats],
        changed: list[int],
        starts: Sequence[Index],
    ) -> None:
        self._network, self._given = network, given
        self._channels, self._starts = changed, starts
        self._passed: tuple[Tuning, Tensor, Tensor] | None = None

    def logits(self, tuning: Tuning) -> Floats:
        """(N, z, y, x); a forward pass."""
        batch = torch.from_numpy(self._given(tuning)).requires_grad_()
        windows = _cut(self._network(batch)[0, 0], self._starts)
        self._passed = tuning, batch, windows
        found: Floats = windows.detach().numpy()
        return found

    def gradients(self, tuning: Tuning, d_logits: Floats) -> tuple[Floats, Floats]:
        """By scale (0,) and by bias (K z y x,), of the sum of the logits times `d_logits`.

        A backward pass, if the logits at this tuning were asked for last.
        """
        if self._passed is None or self._passed[0] is not tuning:
            self.logits(tuning)
        assert self._passed is not None
        _, batch, windows = self._passed
        self._passed = None  # the way back can be gone only once
        (d_input,) = torch.autograd.grad(windows, batch, torch.from_numpy(d_logits))
        d_bias: Floats = d_input[0, self._channels].numpy().ravel()
        return np.zeros(0, np.float32), d_bias


def _cut(logits: Tensor, starts: Sequence[Index]) -> Tensor:
    """Windows (N, z, y, x) of a patch's logits (z, y, x), with zeros beyond it."""
    margin = max(WINDOW)
    padded = functional.pad(logits, 6 * (margin,))
    windows = []
    for start in starts:
        z, y, x = (slice(s + margin, s + margin + n) for s, n in zip(start, WINDOW, strict=True))
        windows.append(padded[z, y, x])
    return torch.stack(windows)
