"""What a result was measured on."""

import contextlib
import importlib.metadata

from clickseg_infer.machine import machine as describe

PACKAGES = (
    "clickseg",
    "numpy",
    "numba",
    "onnxruntime",
    "openvino",
    "scipy",
    "torch",
    "monai",
    "nnunetv2",
    "nibabel",
    "simpleitk",
    "isal",
    "connected-components-3d",
    "edt",
)
"""Whose versions are named where they are installed."""


def machine() -> dict[str, object]:
    """The processor, its cores, and the versions that matter."""
    return {**describe(), "packages": _versions()}


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
