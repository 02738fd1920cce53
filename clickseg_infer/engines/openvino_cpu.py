"""OpenVINO on the CPU, in bfloat16 where the CPU computes in it natively."""

from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from clickseg_infer.errors import EngineError, one_line
from clickseg_infer.file_grid import Index

_HINTS = {"float32": "f32", "bfloat16": "bf16"}


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
            core = openvino.Core()
            model = core.read_model(content)
            channels = model.input(0).get_partial_shape()[1]
            model.reshape([1, channels.get_length(), *patch])
            compiled = core.compile_model(
                model,
                "CPU",
                {"INFERENCE_PRECISION_HINT": _HINTS[self.precision], "PERFORMANCE_HINT": "LATENCY"},
            )
            self._request: Any = compiled.create_infer_request()
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
