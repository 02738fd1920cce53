"""A GPU that is not there: CUDA's memory, and a TensorRT that runs its plans on the CPU.

Its device memory is the host's, so that addresses and copies are real; its plans are a name and a
number. What it shows is that the right calls are made in the right order, not what a GPU computes.
"""

import ctypes
import types
import weakref
from collections.abc import Callable

import numpy as np
import pytest

from clickseg_infer import engines
from clickseg_infer.engines import plan_builder, plans, tensorrt_gpu
from clickseg_infer.engines.nvidia import Gpu

GPU = Gpu("NVIDIA Test 9000", "SM89")


class Cuda(types.ModuleType):
    """cuda.bindings.runtime; every call gives an error code and what it returns."""

    class cudaMemcpyKind:  # noqa: N801
        cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost = "in", "out"  # noqa: N815

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.buffers: dict[int, np.ndarray] = {}
        self.allocated, self.streams, self.fail = 0, 0, ""
        self.refused = ""  # the call of a plan's context that says no

    def _code(self, name: str) -> int:
        return 2 if name == self.fail else 0

    def cudaStreamCreate(self) -> tuple:  # noqa: N802
        self.streams += 1
        return self._code("stream"), 77

    def cudaStreamDestroy(self, stream: int) -> tuple:  # noqa: N802
        assert stream == 77
        self.streams -= 1
        return (0,)

    def cudaStreamSynchronize(self, stream: int) -> tuple:  # noqa: N802
        assert stream == 77
        return (self._code("wait"),)

    def cudaMalloc(self, size: int) -> tuple:  # noqa: N802
        buffer = np.zeros(size, np.uint8)
        self.buffers[buffer.ctypes.data] = buffer
        self.allocated += 1
        return self._code("malloc"), buffer.ctypes.data

    def cudaFree(self, address: int) -> tuple:  # noqa: N802
        del self.buffers[address]
        return (self._code("free"),)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: str, stream: int) -> tuple:  # noqa: N802
        device = to if kind == "in" else source
        assert size <= self.buffers[device].nbytes
        assert stream == 77
        ctypes.memmove(to, source, size)
        return (self._code("copy"),)


class TensorRt(types.ModuleType):
    """The part of tensorrt that runs plans; a plan b"plan LARGEST" computes `function`."""

    class ILogger:
        ERROR, INTERNAL_ERROR = "error", "internal"

        def __init__(self) -> None: ...

    def __init__(
        self, cuda: Cuda, function: Callable[[np.ndarray], np.ndarray], version: str = "10.13.1"
    ) -> None:
        super().__init__("tensorrt")
        self.cuda, self.function, self.__version__ = cuda, function, version
        self.open_plans: weakref.WeakSet[_Plan] = weakref.WeakSet()

    def Runtime(self, log: ILogger) -> "_Runtime":  # noqa: N802
        return _Runtime(self, log)


class _Runtime:
    def __init__(self, trt: TensorRt, log: TensorRt.ILogger) -> None:
        self.trt, self.log = trt, log

    def deserialize_cuda_engine(self, plan: bytes) -> "_Plan | None":
        if not plan.startswith(b"plan"):
            self.log.log("error", "bad magic")  # type: ignore[attr-defined]
            return None
        return _Plan(self.trt, int(plan.split()[1]))


class _Plan:
    def __init__(self, trt: TensorRt, largest: int) -> None:
        self.trt, self.largest = trt, largest
        trt.open_plans.add(self)
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}

    def get_tensor_name(self, number: int) -> str:
        return ("input", "logits")[number]

    def create_execution_context(self) -> "_Plan":
        return self

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "input"
        self.shape = shape
        return shape[0] <= self.largest and self.trt.cuda.refused != "shape"

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return self.trt.cuda.refused != name

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 77
        if self.trt.cuda.refused == "execute":
            return False
        buffers = self.trt.cuda.buffers
        count = int(np.prod(self.shape))
        batch = buffers[self.addresses["input"]].view(np.float32)[:count].reshape(self.shape)
        logits = self.trt.function(batch).ravel()
        buffers[self.addresses["logits"]].view(np.float32)[: logits.size] = logits
        return True


def put_gpu(monkeypatch: pytest.MonkeyPatch, gpu: Gpu = GPU) -> None:
    """Let every module that asks find this GPU."""
    for module in (engines, plan_builder, tensorrt_gpu):
        monkeypatch.setattr(module, "find_gpu", lambda: gpu)


def put_builder(
    monkeypatch: pytest.MonkeyPatch, trt: TensorRt, plan: Callable[[], bytes] = lambda: b"plan 4"
) -> list[str]:
    """Let this package be both builders; the list grows by the builder's name when one compiles."""
    counted: list[str] = []

    def build_plan(builder: str, *_: object) -> bytes:
        counted.append(builder)
        return plan()

    monkeypatch.setattr(plans, "build_plan", build_plan)
    for module in (plans, tensorrt_gpu):
        monkeypatch.setattr(module, "load_builder", lambda _: trt)
    return counted
