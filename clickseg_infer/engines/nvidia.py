"""Is there an NVIDIA GPU? Asked of the driver, before any package that would crash without one."""

import ctypes
import sys
from dataclasses import dataclass
from typing import Any

from clickseg_infer.errors import EngineError

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_NAME_LENGTH = 100


@dataclass(frozen=True)
class Gpu:
    """A device that the driver knows.

    Attributes:
        name: as the driver gives it, such as "NVIDIA H100 80GB HBM3".
        compute_capability: such as "SM90".
    """

    name: str
    compute_capability: str


def find_gpu() -> Gpu:
    """The first NVIDIA GPU of this machine.

    From the CUDA driver API (https://docs.nvidia.com/cuda/cuda-driver-api).

    Raises:
        EngineError: no driver, or no device that it can use.
    """
    driver = _driver()
    code = driver.cuInit(0)
    if code != 0:
        raise EngineError(f"no NVIDIA GPU: the driver does not start (CUDA error {code})")
    count = ctypes.c_int()
    _checked(driver.cuDeviceGetCount(ctypes.byref(count)))
    if count.value == 0:
        raise EngineError("no NVIDIA GPU: the driver finds none")
    name = ctypes.create_string_buffer(_NAME_LENGTH)
    _checked(driver.cuDeviceGetName(name, _NAME_LENGTH, 0))
    numbers = []
    for attribute in (_MAJOR, _MINOR):
        number = ctypes.c_int()
        _checked(driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, 0))
        numbers.append(str(number.value))
    return Gpu(name.value.decode(errors="replace"), "SM" + "".join(numbers))


def _driver() -> Any:
    """The driver's library."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise EngineError("no NVIDIA GPU: no driver is installed") from error


def _checked(code: int) -> None:
    if code != 0:
        raise EngineError(f"no NVIDIA GPU: CUDA error {code}")
