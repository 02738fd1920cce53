"""Who may import whom, seen from outside: in fresh interpreters."""

import subprocess
import sys

import pytest

import clickseg_infer as cs

ENGINES = ("numba", "onnxruntime", "openvino")
SERVER = ("fastapi", "starlette", "uvicorn")
HEAVY = ("torch", "onnx", "monai", "onnxscript")


def loaded_by(code: str, *modules: str) -> list[str]:
    """Which of `modules` a fresh interpreter has loaded after `code`."""
    program = f"{code}\nimport sys; print(*(m for m in {modules!r} if m in sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return result.stdout.splitlines()[-1].split()


def use_everything(package: str) -> str:
    return (
        f"import importlib, pkgutil, {package} as root\n"
        "for m in pkgutil.walk_packages(root.__path__, root.__name__ + '.'):\n"
        "    importlib.import_module(m.name)\n"
    )


def test_the_runtime_leaves_training_frameworks_alone() -> None:
    code = use_everything("clickseg_infer") + "import clickseg_infer as cs\n"
    code += "[getattr(cs, name) for name in cs.__all__]"
    assert loaded_by(code, *HEAVY) == []


def test_refining_needs_none_of_them_either() -> None:
    code = (
        "import numpy as np, clickseg_infer as cs\n"
        "volume = cs.Volume(np.random.default_rng(0).normal(0, 99, (40, 40, 40)), np.eye(4))\n"
        "with cs.load_model(refine='fbrs') as model:\n"
        "    session = cs.Session(model, volume)\n"
        "    for x in range(18, 24): session.click((20, 20, x), x % 2 == 0)\n"
        "    assert all(session.mask[c.zyx] == c.positive for c in session.clicks)\n"
    )
    assert loaded_by(code, *HEAVY) == []


def test_that_test_can_fail() -> None:
    code = use_everything("clickseg_infer") + "import onnx"
    assert loaded_by(code, *HEAVY) == ["onnx"]


def test_help_loads_nothing_heavy() -> None:
    code = (
        "from clickseg_cli.main import main\n"
        "for arguments in (['--help'], *([c, '--help'] for c in ('segment', 'train', 'demo'))):\n"
        "    try: main(arguments)\n"
        "    except SystemExit as end: assert end.code == 0\n"
    )
    assert loaded_by(code, *HEAVY, *SERVER, *ENGINES, "numpy", "scipy") == []


def test_only_the_server_needs_what_serves() -> None:
    code = "import clickseg_infer as cs\n[getattr(cs, name) for name in cs.__all__]"
    assert loaded_by(code, *SERVER) == []
    assert loaded_by("import clickseg_infer.server.app", *SERVER) == ["fastapi", "starlette"]


@pytest.mark.parametrize("module", ["clickseg_train.evaluate", "clickseg_train.phantom"])
def test_evaluating_and_phantoms_need_no_torch(module: str) -> None:
    assert loaded_by(f"import {module}", *HEAVY) == []


def test_every_public_name_is_there_in_any_order() -> None:
    for first in ("Session", "predict", "Prediction"):
        code = f"import clickseg_infer as cs; cs.{first}; assert callable(cs.predict)"
        assert loaded_by(code, "numba") == ["numba"]


def test_what_is_not_public_is_not_there() -> None:
    with pytest.raises(AttributeError, match="telepathy"):
        cs.telepathy  # noqa: B018
