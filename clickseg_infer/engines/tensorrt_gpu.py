"""TensorRT and TensorRT-RTX plans on an NVIDIA GPU."""

import importlib
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.engines import Network
from clickseg_infer.engines.nvidia import find_gpu
from clickseg_infer.engines.plan_builder import load_builder, logger_of
from clickseg_infer.engines.plans import PlanRecord, find_plan, renew_plan
from clickseg_infer.errors import EngineError, one_line

_log = logging.getLogger("clickseg")


def open_network(name: str, network: Network, precision: str, *, asked: bool) -> "PlanEngine":
    """Open a network's plan; only who asked for TensorRT by name waits for one to be compiled.

    Raises:
        EngineError: no GPU, no package, not this precision, no plan, or one that does not open.
    """
    has = precisions(name, network)
    if precision not in ("auto", *has):
        raise EngineError(f"{name} computes this model in {', '.join(has)}, not {precision}")
    gpu = find_gpu()
    plan, record = find_plan(name, network, gpu, build=asked)
    try:
        return PlanEngine(plan, record)
    except EngineError as error:
        _log.warning("%s; it is compiled anew", error)
        return PlanEngine(*renew_plan(name, network, gpu))


def precisions(name: str, network: Network) -> tuple[str, ...]:
    """The graph's own.

    Raises:
        EngineError: no GPU, or the package cannot be imported.
    """
    find_gpu()
    load_builder(name)
    return (network.precision,)


class PlanEngine:
    """One plan with its context, its stream, and device memory that is kept."""

    def __init__(self, plan: bytes, record: PlanRecord) -> None:
        trt = load_builder(record.builder)
        self.name, self.precision = record.builder, record.precision
        self._largest = record.profile.largest
        self._device: _Device | None = None
        log = logger_of(trt)
        log.drain()
        self._runtime = trt.Runtime(log)
        engine = self._runtime.deserialize_cuda_engine(plan)
        self._context: Any = engine and engine.create_execution_context()
        if self._context is None:
            reasons = log.drain() or ["it gives no reason"]
            raise EngineError(
                f"{self.name} cannot open the plan: {one_line(RuntimeError(reasons[0]))}"
            )
        self._engine = engine
        self._entry, self._exit = engine.get_tensor_name(0), engine.get_tensor_name(1)
        self._device = _Device()

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Network input (N, C, z, y, x) to logits (N, 1, z, y, x); see `Engine.run`."""
        if self._device is None:
            raise EngineError(f"{self.name}: the engine is closed")
        logits = np.empty((len(batch), 1, *batch.shape[2:]), np.float32)
        for begin in range(0, len(batch), self._largest):
            part = slice(begin, begin + self._largest)
            self._run(self._device, np.ascontiguousarray(batch[part], np.float32), logits[part])
        return logits

    def close(self) -> None:
        """Let go of the plan and of the device's memory."""
        if self._device is not None:
            self._device.close()
        self._device = self._context = self._engine = self._runtime = None

    def _run(
        self, device: "_Device", batch: NDArray[np.float32], logits: NDArray[np.float32]
    ) -> None:
        context = self._context
        if not context.set_input_shape(self._entry, batch.shape):
            raise EngineError(f"{self.name} failed: the plan does not take {batch.shape}")
        entry, exit_ = device.memory("in", batch.nbytes), device.memory("out", logits.nbytes)
        device.copy_in(entry, batch)
        context.set_tensor_address(self._entry, entry)
        context.set_tensor_address(self._exit, exit_)
        if not context.execute_async_v3(device.stream):
            raise EngineError(f"{self.name} failed: the plan could not be queued")
        device.copy_out(logits, exit_)
        device.wait()


class _Device:
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
        for address, _ in self._buffers.values():
            self._checked(self._cuda.cudaFree(address))
        self._buffers = {}
        self._checked(self._cuda.cudaStreamDestroy(self._stream))

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
