"""OpenVINO on the CPU, in bfloat16 where the CPU computes in it natively."""

import importlib
import io
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.engines import Network
from clickseg_infer.engines.compiled_cache import read_entry, write_entry
from clickseg_infer.engines.graph_inputs import checked, narrowed, only_input
from clickseg_infer.errors import EngineError, one_line

_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
_CPU = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")


def open_network(name: str, network: Network, precision: str, *, asked: bool) -> "OpenVinoEngine":
    """Compile a network, or take it from the cache; see `open_engine`.

    Raises:
        EngineError: it cannot be imported, or has not the precision, or not the model.
    """
    del asked
    has = precisions(name, network)
    if precision not in ("auto", *has):
        raise EngineError(f"openvino computes this model in {', '.join(has)} here, not {precision}")
    return OpenVinoEngine(network, has[0] if precision == "auto" else precision)


def precisions(name: str, network: Network) -> tuple[str, ...]:
    """int8 if that is the graph's, else what this CPU computes in, the faster first.

    Raises:
        EngineError: it cannot be imported.
    """
    del name
    openvino = _imported()
    try:
        able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except RuntimeError as error:
        raise EngineError(f"openvino finds no CPU that it knows: {one_line(error)}") from error
    if network.precision == "int8":
        return ("int8",)
    return ("bfloat16", "float32") if "BF16" in able else ("float32",)


class OpenVinoEngine:
    """One compiled model with one inference request, for batches of one patch at a time."""

    name = "openvino"

    def __init__(self, network: Network, precision: str) -> None:
        self.precision = precision
        try:
            compiled = _compiled(network, precision)
            self._takes = _shapes_of(compiled.inputs)
            self._request: Any = compiled.create_infer_request()
        except RuntimeError as error:
            raise EngineError(f"openvino cannot compile the model: {one_line(error)}") from error

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Network input (N, C, z, y, x) to logits (N, 1, z, y, x); see `Engine.run`."""
        if self._request is None:
            raise EngineError("openvino: the engine is closed")
        logits = np.empty((len(batch), 1, *batch.shape[2:]), np.float32)
        try:
            only_input(self._takes)
            for patch, answer in zip(batch, logits, strict=True):
                entry = [np.ascontiguousarray(patch[None])]
                self._request.infer(entry, share_inputs=True, share_outputs=True)
                answer[:] = self._request.get_output_tensor(0).data[0]
        except RuntimeError as error:
            raise EngineError(f"openvino failed: {one_line(error)}") from error
        return logits

    def run_graph(
        self, inputs: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        """Every output by its name; see `Engine.run_graph`."""
        if self._request is None:
            raise EngineError("openvino: the engine is closed")
        try:
            answers = self._request.infer(checked(self._takes, inputs), share_inputs=True)
        except RuntimeError as error:
            raise EngineError(f"openvino failed: {one_line(error)}") from error
        return {port.any_name: array for port, array in answers.items()}

    def close(self) -> None:
        """Let go of the compiled model."""
        self._request = None


def _compiled(network: Network, precision: str) -> Any:
    """The model, compiled or, with the same bits as its answers, taken from the cache."""
    openvino = _imported()
    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
    about: dict[str, object] = {
        "engine": "openvino",
        "version": openvino.__version__,
        "model": network.sha256,
        "precision": precision,
        "patch": list(network.patch),
        "device": [core.get_property("CPU", name) for name in _CPU],
        "options": options,
    }
    if network.shapes is not None:
        about["shapes"] = dict(network.shapes)
    kept = read_entry(about)
    if kept is not None:
        with suppress(RuntimeError):
            return core.import_model(openvino.Tensor(np.frombuffer(kept, np.uint8)), "CPU", options)
    model = core.read_model(network.content)
    if network.shapes is None:
        channels = model.input(0).get_partial_shape()[1]
        model.reshape([1, channels.get_length(), *network.patch])
    else:
        model.reshape(narrowed(_shapes_of(model.inputs), network.shapes))
    compiled = core.compile_model(model, "CPU", options)
    with suppress(RuntimeError):
        write_entry(about, partial(_exported, compiled))
    return compiled


def _shapes_of(ports: Iterable[Any]) -> dict[str, tuple[int, ...]]:
    """Inputs' shapes by name, -1 where a size is open."""
    return {
        port.any_name: tuple(
            -1 if size.is_dynamic else size.get_length() for size in port.get_partial_shape()
        )
        for port in ports
    }


def _exported(compiled: Any) -> bytes:
    stream = io.BytesIO()
    compiled.export_model(stream)
    return stream.getvalue()


def _imported() -> Any:
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise EngineError(f"openvino is installed but cannot be imported: {error}") from error
