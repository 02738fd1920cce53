"""What a result was measured on."""

import importlib.metadata
import os
import platform
from pathlib import Path

PACKAGES = ("clickseg", "numpy", "numba", "onnxruntime", "openvino")


def machine() -> dict[str, object]:
    """The processor, its cores, and the versions that matter."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    features = ", ".join(name for name in wanted if name in flags)
    return f"{names[0] if names else platform.processor()} ({features})"
