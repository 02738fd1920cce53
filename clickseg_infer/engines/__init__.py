"""Engines: whatever turns a batch of network input into logits. Arrays in, arrays out."""

import hashlib
import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.engines.nvidia import find_gpu
from clickseg_infer.errors import EngineError
from clickseg_infer.file_grid import Index

ON_GPU = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda")
"""The engines that need an NVIDIA GPU."""

NAMES = (*ON_GPU, "openvino", "onnxruntime")
"""The engines: the rungs of the ladder that `auto` climbs down, the fastest first."""

PRECISIONS = ("auto", "float32", "bfloat16", "float16", "int8")

_PACKAGES = {  # what is imported for it, what brings it, and the module here that knows it
    "tensorrt": ("tensorrt", "clickseg[trt]", "tensorrt_gpu"),
    "tensorrt-rtx": ("tensorrt_rtx", "clickseg[trt-rtx]", "tensorrt_gpu"),
    "onnxruntime-cuda": ("onnxruntime", "clickseg[gpu]", "onnxruntime_any"),
    "openvino": ("openvino", "openvino", "openvino_cpu"),
    "onnxruntime": ("onnxruntime", "clickseg[cpu]", "onnxruntime_any"),
}


class Engine(Protocol):
    """Runs one network, or any other graph. It knows nothing of clicks.

    Attributes:
        name: of the engine that really runs.
        precision: in which it really computes: "float32", "bfloat16", "float16" or "int8".
    """

    name: str
    precision: str

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Network input (N, C, z, y, x) float32, not modified, to logits (N, 1, z, y, x) float32.

        The logits are the first output, for the one input: a new array, which the caller keeps.

        Raises:
            EngineError: the engine failed.
        """
        ...

    def run_graph(
        self, inputs: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        """Every output of the graph by its name, for all of its inputs.

        Args:
            inputs: float32 arrays of any rank, in the shapes that the network was compiled for;
                without `Network.shapes`, one patch at a time. Not modified.

        Returns:
            New float32 arrays, which the caller keeps.

        Raises:
            EngineError: other names or shapes than the graph's, or the engine failed.
        """
        ...

    def close(self) -> None:
        """Let go of memory and threads; the engine cannot run after this."""
        ...


@dataclass(frozen=True, eq=False)
class Network:
    """What an engine compiles.

    Attributes:
        content: a serialised ONNX model, float32 in and out.
        patch: the patch size (z, y, x) to compile for.
        precision: of the graph: "float32", "float16" or "int8".
        path: of the model file, beside which a plan may lie; None for one that is not from a file.
        shapes: each input's shape to compile for, with -1 where a size is open (only ever the first
            axis, the batch); None for the one input (N, C, *patch).
    """

    content: bytes
    patch: Index
    precision: str = "float32"
    path: Path | None = None
    shapes: Mapping[str, tuple[int, ...]] | None = None

    @cached_property
    def sha256(self) -> str:
        """Of the content, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


def open_engine(network: Network, name: str = "auto", precision: str = "auto") -> Engine:
    """Compile a network.

    Args:
        network: what to run.
        name: one of NAMES, or "auto" for the first of them that runs it.
        precision: one of PRECISIONS; "auto" is the fastest in which the engine has the graph here.

    Raises:
        EngineError: unknown or not installed, a precision that it does not have here, or a model
            that it cannot compile. A named engine never falls back to another.
    """
    if name == "auto":
        return climb(network, precision)[0]
    if name not in NAMES:
        raise EngineError(f"unknown engine {name!r}, allowed are auto, {', '.join(NAMES)}")
    _check_precision(precision)
    opened: Engine = _module_of(name).open_network(name, network, precision, asked=True)
    return opened


def climb(network: Network, precision: str = "auto") -> tuple[Engine, dict[str, str]]:
    """The first engine of NAMES that runs a network, and why those before it do not.

    Raises:
        EngineError: none does, or an unknown precision.
    """
    _check_precision(precision)
    reasons: dict[str, str] = {}
    for name in NAMES:
        try:
            engine = _module_of(name).open_network(name, network, precision, asked=False)
        except EngineError as error:
            reasons[name] = str(error)
            continue
        return engine, reasons
    raise EngineError("no engine runs the model: " + "; ".join(reasons.values()))


def precisions(name: str, network: Network) -> tuple[str, ...]:
    """In what an engine computes a network on this machine, what it takes by itself first.

    Raises:
        EngineError: it is not installed, cannot be imported, or has no device to run on.
    """
    found: tuple[str, ...] = _module_of(name).precisions(name, network)
    return found


def available(network: Network) -> tuple[str, ...]:
    """The engines that have what they need to run a network on this machine, the fastest first."""
    return tuple(name for name in NAMES if _has(name, network))


def _has(name: str, network: Network) -> bool:
    try:
        return bool(precisions(name, network))
    except EngineError:
        return False


def _check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise EngineError(f"unknown precision {precision!r}, allowed are {', '.join(PRECISIONS)}")


def _module_of(name: str) -> ModuleType:
    """The module that knows an engine; it imports the engine's package only when it is asked for.

    Each has `open_network(name, network, precision, asked)`, where `asked` tells a user who named
    the engine from one who takes what there is, and `precisions(name, network)`.
    """
    if name in ON_GPU:
        find_gpu()  # before an import that takes as long as a click, or crashes
    package, extra, module = _PACKAGES[name]
    if importlib.util.find_spec(package) is None:
        raise EngineError(f"the engine {name!r} is not installed: pip install '{extra}'")
    return importlib.import_module(f"clickseg_infer.engines.{module}")
