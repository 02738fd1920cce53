"""OpenVINO on the CPU, in bfloat16 where the CPU computes in it natively."""

import io
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from clickseg_infer.engines.compiled_cache import entry_key, read_entry, write_entry
from clickseg_infer.errors import EngineError, one_line
from clickseg_infer.file_grid import Index

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_CPU = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")


def supported_precisions() -> tuple[str, ...]:
    """The precisions this CPU computes in natively, the default first."""
    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("bfloat16", "float32") if "BF16" in able else ("float32",)


class OpenVinoEngine:
    """One compiled model with one inference request, for batches of one patch at a time."""

    name = "openvino"

    def __init__(self, content: bytes, patch: Index, precision: str) -> None:
        supported = supported_precisions()
        self.precision = supported[0] if precision == "auto" else precision
        if self.precision not in supported:
            raise EngineError(f"openvino computes in {', '.join(supported)} here, not {precision}")
        try:
            self._request: Any = _compiled(content, patch, self.precision).create_infer_request()
        except RuntimeError as error:
            raise EngineError(f"openvino cannot compile the model: {one_line(error)}") from error

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Network input (N, C, z, y, x) to logits (N, 1, z, y, x); see `Engine.run`."""
        if self._request is None:
            raise EngineError("openvino: the engine is closed")
        logits = np.empty((len(batch), 1, *batch.shape[2:]), np.float32)
        try:
            for patch, answer in zip(batch, logits, strict=True):
                self._request.infer([np.ascontiguousarray(patch[None])], share_inputs=True)
                answer[:] = self._request.get_output_tensor(0).data[0]
        except RuntimeError as error:
            raise EngineError(f"openvino failed: {one_line(error)}") from error
        return logits

    def close(self) -> None:
        """Let go of the compiled model."""
        self._request = None


def _compiled(content: bytes, patch: Index, precision: str) -> Any:
    """The model, compiled or, with the same bits as its answers, taken from the cache."""
    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
    cpu = [core.get_property("CPU", name) for name in _CPU]
    key = entry_key(content, "openvino", openvino.__version__, options, tuple(patch), cpu)
    kept = read_entry(key)
    if kept is not None:
        with suppress(RuntimeError):
            return core.import_model(openvino.Tensor(np.frombuffer(kept, np.uint8)), "CPU", options)
    model = core.read_model(content)
    channels = model.input(0).get_partial_shape()[1]
    model.reshape([1, channels.get_length(), *patch])
    compiled = core.compile_model(model, "CPU", options)
    with suppress(RuntimeError):
        write_entry(key, partial(_exported, compiled))
    return compiled


def _exported(compiled: Any) -> bytes:
    stream = io.BytesIO()
    compiled.export_model(stream)
    return stream.getvalue()
