"""A CUDA device as engines need it: a stream, and memory that is kept."""

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.errors import EngineError


class Device:
    """A CUDA stream and buffers on the device, which grow and are kept."""

    def __init__(self) -> None:
        try:
            self._cuda: Any = importlib.import_module("cuda.bindings.runtime")
        except ImportError as error:
            raise EngineError(
                "TensorRT needs cuda-bindings: pip install 'clickseg[trt]' or 'clickseg[trt-rtx]'"
            ) from error
        self._buffers: dict[str, tuple[int, int]] = {}
        self._stream = self._checked(self._cuda.cudaStreamCreate())

    @property
    def stream(self) -> int:
        """Its handle."""
        return int(self._stream)

    def memory(self, name: str, size: int) -> int:
        """The address of a buffer of at least `size` bytes, the same as last time if it was."""
        address, had = self._buffers.get(name, (0, 0))
        if had < size:
            if address:
                self._checked(self._cuda.cudaFree(address))
                del self._buffers[name]
            address = int(self._checked(self._cuda.cudaMalloc(size)))
            self._buffers[name] = address, size
        return address

    def copy_in(self, address: int, array: NDArray[np.float32]) -> None:
        """Queue a copy to the device."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(address, array.ctypes.data, array.nbytes, kind)

    def copy_out(self, array: NDArray[np.float32], address: int) -> None:
        """Queue a copy from the device."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(array.ctypes.data, address, array.nbytes, kind)

    def wait(self) -> None:
        """Until everything that was queued is done."""
        self._checked(self._cuda.cudaStreamSynchronize(self._stream))

    def close(self) -> None:
        """Give everything back."""
        results = [self._cuda.cudaFree(address) for address, _ in self._buffers.values()]
        self._buffers = {}
        for result in (*results, self._cuda.cudaStreamDestroy(self._stream)):
            self._checked(result)

    def _copy(self, to: int, source: int, size: int, kind: Any) -> None:
        self._checked(self._cuda.cudaMemcpyAsync(to, source, size, kind, self._stream))

    def _checked(self, result: tuple[Any, ...]) -> Any:
        """What a call returned beside its error code.

        Raises:
            EngineError: the code is not success.
        """
        code, *values = result
        if int(code) != 0:
            raise EngineError(f"CUDA failed: {code}")
        return values[0] if values else None
