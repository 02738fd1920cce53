"""ONNX Runtime, on the CPU or on an NVIDIA GPU.

`onnxruntime` and `onnxruntime-gpu` are two distributions of the same import: the one installed last
wins, and removing one breaks the other.
"""

import importlib
import importlib.metadata
import io
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.engines import Network
from clickseg_infer.engines.graph_inputs import checked, narrowed
from clickseg_infer.errors import EngineError, one_line

_GPU = "onnxruntime-cuda"
_CPU_PROVIDER, _GPU_PROVIDER = "CPUExecutionProvider", "CUDAExecutionProvider"
_OPTIONS: Mapping[str, Mapping[str, str]] = {
    _CPU_PROVIDER: {},
    _GPU_PROVIDER: {"use_tf32": "0"},  # whose products are not float32
}
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
_FATAL_ONLY = 4  # what it has to say arrives as an exception


def open_network(
    name: str, network: Network, precision: str, *, asked: bool
) -> "OnnxRuntimeEngine":
    """Compile a network; see `open_engine`.

    Raises:
        EngineError: it does not run here, or has not the precision, or not the model.
    """
    del asked  # it opens a model in a moment, for whom it may be
    has = precisions(name, network)
    if precision not in ("auto", *has):
        raise EngineError(f"{name} computes this model in {', '.join(has)}, not {precision}")
    return OnnxRuntimeEngine(name, network)


def precisions(name: str, network: Network) -> tuple[str, ...]:
    """The graph's own.

    Raises:
        EngineError: it cannot be imported, or is the build for CPUs.
    """
    runtime = _imported()
    if name == _GPU:
        _load_cuda(runtime)
    if name == _GPU and _GPU_PROVIDER not in runtime.get_available_providers():
        mend = double_installation() or "it is the build for CPUs: pip install 'clickseg[gpu]'"
        raise EngineError(f"onnxruntime cannot use the GPU: {mend}")
    return (network.precision,)


def double_installation() -> str:
    """What to do about two distributions that overwrite each other; empty where there is one."""
    if len(_installed()) < 2:
        return ""
    return (
        "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
        "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install the one that is wanted"
    )


class OnnxRuntimeEngine:
    """One inference session, in the graph's own precision.

    A CPU computes float16 in float32 and rounds between layers.
    """

    def __init__(self, name: str, network: Network) -> None:
        self.name, self.precision = name, network.precision
        runtime = _imported()
        options = runtime.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        provider = _GPU_PROVIDER if name == _GPU else _CPU_PROVIDER
        wanted = [(provider, dict(_OPTIONS[provider]))]
        try:
            # Its Python side falls back to the CPU by itself, even in the middle of a run.
            session = runtime.InferenceSession(
                network.content, options, providers=wanted, enable_fallback=0
            )
        except Exception as error:  # its exceptions share no base class but Exception
            raise EngineError(f"{name} cannot compile the model: {one_line(error)}") from error
        if session.get_providers()[0] != provider:  # and so does its other side
            raise EngineError(
                f"{name} fell back to {session.get_providers()[0]}: the CUDA and cuDNN that "
                "onnxruntime-gpu was built for cannot be loaded"
            )
        self._session: Any = session
        self._takes = {
            entry.name: tuple(size if isinstance(size, int) else -1 for size in entry.shape)
            for entry in session.get_inputs()
        }
        if network.shapes is not None:
            self._takes = narrowed(self._takes, network.shapes)
        self._input = next(iter(self._takes))
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Network input (N, C, z, y, x) to logits (N, 1, z, y, x); see `Engine.run`."""
        if self._session is None:
            raise EngineError(f"{self.name}: the engine is closed")
        try:
            feed = {self._input: np.ascontiguousarray(batch)}
            (logits,) = self._session.run(self._outputs[:1], feed)
        except Exception as error:  # as above
            raise EngineError(f"{self.name} failed: {one_line(error)}") from error
        return np.asarray(logits, np.float32)

    def run_graph(
        self, inputs: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        """Every output by its name; see `Engine.run_graph`."""
        if self._session is None:
            raise EngineError(f"{self.name}: the engine is closed")
        try:
            answers = self._session.run(self._outputs, checked(self._takes, inputs))
        except Exception as error:  # as above
            raise EngineError(f"{self.name} failed: {one_line(error)}") from error
        return dict(zip(self._outputs, answers, strict=True))

    def close(self) -> None:
        """Let go of the session."""
        self._session = None


def _imported() -> Any:
    """The package; what is left of it after one of two distributions was removed is no package."""
    try:
        runtime = importlib.import_module("onnxruntime")
        runtime.InferenceSession  # noqa: B018
    except (ImportError, AttributeError) as error:
        known = " or ".join(_installed()) or "onnxruntime"
        mend = double_installation() or f"pip install --force-reinstall {known}"
        raise EngineError(f"onnxruntime is there but broken ({one_line(error)}): {mend}") from error
    return runtime


def _load_cuda(runtime: Any) -> None:
    """Load the CUDA and cuDNN that pip installed, which no loader finds by itself."""
    if hasattr(runtime, "preload_dlls"):
        with redirect_stdout(io.StringIO()):  # what it cannot load, the session will miss
            runtime.preload_dlls()


def _installed() -> list[str]:
    """Which of the two distributions are installed."""
    found = []
    for name in _DISTRIBUTIONS:
        with suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(name)
            found.append(name)
    return found
