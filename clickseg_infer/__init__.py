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
        ReplayError,
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
    from clickseg_infer.recording import Recording, read_recording, record, replay, write_recording
    from clickseg_infer.session import Session
    from clickseg_infer.simulate import next_click
    from clickseg_infer.start import open_scan
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
    "ReplayError": "errors",
    "Prediction": "prediction",
    "Recording": "recording",
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
    "open_scan": "start",
    "predict": "predicting",
    "read_clicks": "clicks",
    "read_label": "files",
    "read_recording": "recording",
    "read_volume": "files",
    "record": "recording",
    "replay": "recording",
    "write_clicks": "clicks",
    "write_mask": "files",
    "write_preview": "preview",
    "write_recording": "recording",
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
    "Recording",
    "ReplayError",
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
    "open_scan",
    "predict",
    "read_clicks",
    "read_label",
    "read_recording",
    "read_volume",
    "record",
    "replay",
    "write_clicks",
    "write_mask",
    "write_preview",
    "write_recording",
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
