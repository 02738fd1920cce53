import ctypes
import types

import pytest

import clickseg_infer as cs
from clickseg_infer.engines import nvidia


class Driver(types.SimpleNamespace):
    """The CUDA driver's library, on a machine with these devices."""

    def __init__(self, devices: list[tuple[bytes, int, int]], starts: int = 0) -> None:
        super().__init__()
        self.devices, self.starts = devices, starts

    def cuInit(self, flags: int) -> int:  # noqa: N802
        assert flags == 0
        return self.starts

    def cuDeviceGetCount(self, count: object) -> int:  # noqa: N802
        count._obj.value = len(self.devices)  # type: ignore[attr-defined]
        return 0

    def cuDeviceGetName(self, name: ctypes.Array, length: int, device: int) -> int:  # noqa: N802
        assert length <= len(name)
        name.value = self.devices[device][0]
        return 0

    def cuDeviceGetAttribute(self, number: object, attribute: int, device: int) -> int:  # noqa: N802
        number._obj.value = self.devices[device][{75: 1, 76: 2}[attribute]]  # type: ignore[attr-defined]
        return 0


def test_the_first_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver([(b"NVIDIA H100", 9, 0), (b"NVIDIA RTX 4090", 8, 9)])
    monkeypatch.setattr(nvidia, "_driver", lambda: driver)
    assert nvidia.find_gpu() == nvidia.Gpu("NVIDIA H100", "SM90")


@pytest.mark.parametrize(
    ("driver", "reason"),
    [(Driver([]), "finds none"), (Driver([(b"a", 8, 0)], starts=999), "CUDA error 999")],
)
def test_why_there_is_none(driver: Driver, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "_driver", lambda: driver)
    with pytest.raises(cs.EngineError, match=f"no NVIDIA GPU.*{reason}"):
        nvidia.find_gpu()


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(cs.EngineError, match="no driver is installed"):
        nvidia.find_gpu()
