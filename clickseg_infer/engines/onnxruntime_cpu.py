"""ONNX Runtime on the CPU, in float32."""

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from clickseg_infer.errors import EngineError, one_line
from clickseg_infer.file_grid import Index

_PROVIDER = "CPUExecutionProvider"
_FATAL_ONLY = 4  # what it has to say arrives as an exception


class OnnxRuntimeEngine:
    """One inference session; float32, the only precision of its CPU convolutions."""

    name = "onnxruntime"
    precision = "float32"

    def __init__(self, content: bytes, patch: Index, precision: str) -> None:
        del patch  # one session takes every size
        if precision not in ("auto", self.precision):
            raise EngineError(f"onnxruntime computes in float32 here, not {precision}")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        try:
            session = onnxruntime.InferenceSession(content, options, providers=[_PROVIDER])
        except Exception as error:  # its exceptions share no base class but Exception
            raise EngineError(f"onnxruntime cannot compile the model: {one_line(error)}") from error
        self._session: Any = session
        self._input = session.get_inputs()[0].name

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Network input (N, C, z, y, x) to logits (N, 1, z, y, x); see `Engine.run`."""
        if self._session is None:
            raise EngineError("onnxruntime: the engine is closed")
        try:
            (logits,) = self._session.run(None, {self._input: np.ascontiguousarray(batch)})
        except Exception as error:  # as above
            raise EngineError(f"onnxruntime failed: {one_line(error)}") from error
        return np.asarray(logits, np.float32)

    def close(self) -> None:
        """Let go of the session."""
        self._session = None
