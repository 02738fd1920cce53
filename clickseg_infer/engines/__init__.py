"""Engines: whatever turns a batch of network input into logits. Arrays in, arrays out."""

import importlib.util
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.errors import EngineError
from clickseg_infer.file_grid import Index

NAMES = ("openvino", "onnxruntime")
"""The engines, in the order in which `auto` tries them: OpenVINO is the faster on CPUs."""

PRECISIONS = ("auto", "float32", "bfloat16")


class Engine(Protocol):
    """Runs one network. It knows nothing of clicks.

    Attributes:
        name: of the engine that really runs.
        precision: in which it really computes, "float32" or "bfloat16".
    """

    name: str
    precision: str

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Network input (N, C, z, y, x) float32, not modified, to logits (N, 1, z, y, x) float32.

        The logits are a new array, which the caller keeps.

        Raises:
            EngineError: the engine failed.
        """
        ...

    def close(self) -> None:
        """Let go of memory and threads; the engine cannot run after this."""
        ...


def available() -> tuple[str, ...]:
    """The engines that are installed, best first."""
    return tuple(name for name in NAMES if importlib.util.find_spec(name) is not None)


def open_engine(
    content: bytes, patch: Index, name: str = "auto", precision: str = "auto"
) -> Engine:
    """Compile a serialised ONNX model.

    Args:
        content: the `.onnx` file.
        patch: the patch size (z, y, x) to compile for.
        name: one of NAMES, or "auto" for the first that is installed and can be imported.
        precision: one of PRECISIONS; "auto" is bfloat16 where the CPU computes in it, else float32.

    Raises:
        EngineError: unknown or not installed, a precision that it does not have here, or a model
            that it cannot compile. A named engine never falls back to another.
    """
    if name not in ("auto", *NAMES):
        raise EngineError(f"unknown engine {name!r}, allowed are auto, {', '.join(NAMES)}")
    if precision not in PRECISIONS:
        raise EngineError(f"unknown precision {precision!r}, allowed are {', '.join(PRECISIONS)}")
    installed = available()
    if name != "auto":
        if name not in installed:
            raise EngineError(f"the engine {name!r} is not installed: pip install {name}")
        return _engine_class(name)(content, patch, precision)
    reasons = []
    for candidate in installed:
        try:
            chosen = _engine_class(candidate)
        except EngineError as error:
            reasons.append(str(error))
            continue
        return chosen(content, patch, precision)
    raise EngineError("; ".join(reasons) or f"no engine is installed: pip install {NAMES[0]}")


def _engine_class(name: str) -> Callable[[bytes, Index, str], Engine]:
    """Import an engine's package only when it is asked for."""
    try:
        if name == "openvino":
            from clickseg_infer.engines.openvino_cpu import OpenVinoEngine

            return OpenVinoEngine
        from clickseg_infer.engines.onnxruntime_cpu import OnnxRuntimeEngine

        return OnnxRuntimeEngine
    except ImportError as error:
        raise EngineError(f"{name} is installed but cannot be imported: {error}") from error


def precisions(name: str) -> tuple[str, ...]:
    """The precisions in which an installed engine computes on this machine, the default first.

    Raises:
        EngineError: it is not installed, or cannot be imported.
    """
    if name not in available():
        raise EngineError(f"the engine {name!r} is not installed: pip install {name}")
    _engine_class(name)
    if name == "openvino":
        from clickseg_infer.engines.openvino_cpu import supported_precisions

        return supported_precisions()
    return ("float32",)
