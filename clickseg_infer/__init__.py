"""clickseg's runtime: a model, a volume, clicks in, a mask out. Never torch, never onnx.

    import clickseg_infer as cs

    volume = cs.read_volume("ct.nii.gz")
    with cs.load_model() as model:
        session = cs.Session(model, volume)
        mask = session.click((40, 210, 198))
    cs.write_mask("mask.nii.gz", session.mask, like=volume)

Names are loaded when they are first used, so that importing an error class loads no engine.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from clickseg_infer.clicks import Click, check_clicks, read_clicks, write_clicks
    from clickseg_infer.engines import Engine, open_engine
    from clickseg_infer.engines.function import FunctionEngine
    from clickseg_infer.errors import (
        CheckpointError,
        ClickError,
        ClicksegError,
        ConfigError,
        DatasetError,
        EngineError,
        FileError,
        ModelError,
        ParityError,
        TrainingError,
        VolumeError,
    )
    from clickseg_infer.files import read_label, read_volume, write_mask, write_volume
    from clickseg_infer.metrics import dice
    from clickseg_infer.model import Model, load_model
    from clickseg_infer.model_spec import ModelSpec, Source
    from clickseg_infer.predicting import predict
    from clickseg_infer.prediction import Prediction
    from clickseg_infer.preview import write_preview
    from clickseg_infer.session import Session
    from clickseg_infer.simulate import next_click
    from clickseg_infer.volume import Volume

_MODULE_OF = {
    "CheckpointError": "errors",
    "Click": "clicks",
    "ClickError": "errors",
    "ClicksegError": "errors",
    "ConfigError": "errors",
    "DatasetError": "errors",
    "Engine": "engines",
    "EngineError": "errors",
    "FileError": "errors",
    "FunctionEngine": "engines.function",
    "Model": "model",
    "ModelError": "errors",
    "ModelSpec": "model_spec",
    "ParityError": "errors",
    "Prediction": "prediction",
    "Session": "session",
    "Source": "model_spec",
    "TrainingError": "errors",
    "Volume": "volume",
    "VolumeError": "errors",
    "check_clicks": "clicks",
    "dice": "metrics",
    "load_model": "model",
    "next_click": "simulate",
    "open_engine": "engines",
    "predict": "predicting",
    "read_clicks": "clicks",
    "read_label": "files",
    "read_volume": "files",
    "write_clicks": "clicks",
    "write_mask": "files",
    "write_preview": "preview",
    "write_volume": "files",
}

__all__ = [
    "CheckpointError",
    "Click",
    "ClickError",
    "ClicksegError",
    "ConfigError",
    "DatasetError",
    "Engine",
    "EngineError",
    "FileError",
    "FunctionEngine",
    "Model",
    "ModelError",
    "ModelSpec",
    "ParityError",
    "Prediction",
    "Session",
    "Source",
    "TrainingError",
    "Volume",
    "VolumeError",
    "check_clicks",
    "dice",
    "load_model",
    "next_click",
    "open_engine",
    "predict",
    "read_clicks",
    "read_label",
    "read_volume",
    "write_clicks",
    "write_mask",
    "write_preview",
    "write_volume",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
