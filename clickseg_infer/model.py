"""A model: what it says of itself, and the engine that runs it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from clickseg_infer.engines import Engine, open_engine
from clickseg_infer.errors import FileError, ModelError
from clickseg_infer.files import PathLike
from clickseg_infer.model_spec import ModelSpec
from clickseg_infer.onnx_metadata import append_metadata, read_metadata

DEFAULT_MODEL = Path(__file__).parent / "models" / "light.onnx"
_SPEC, _DIGEST = "clickseg.spec", "clickseg.sha256"


@dataclass(frozen=True, eq=False)
class Model:
    """A spec and an engine that is ready; a context manager that closes it.

    Attributes:
        spec: what the model file says of itself.
        engine: what runs it.
        sha256: of the model file, in hexadecimal; empty for a model that is not from a file.
    """

    spec: ModelSpec
    engine: Engine
    sha256: str = ""

    def __enter__(self) -> "Model":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


def load_model(
    path: PathLike | None = None, *, engine: str = "auto", precision: str = "auto"
) -> Model:
    """Open a model file; without a path, the bundled default.

    Args:
        path: an `.onnx` file that clickseg exported.
        engine: "auto", "openvino" or "onnxruntime"; see `open_engine`.
        precision: "auto", "float32" or "bfloat16".

    Raises:
        FileError: missing or unreadable.
        ModelError: not a clickseg model, of a newer format, or damaged.
        EngineError: the engine is not there or cannot run it.
    """
    spec, content = read_model_file(DEFAULT_MODEL if path is None else path)
    opened = open_engine(content, spec.patch_size, engine, precision)
    return Model(spec, opened, hashlib.sha256(content).hexdigest())


def read_model_file(path: PathLike) -> tuple[ModelSpec, bytes]:
    """The spec and the bytes of a model file, checked against the digest that it carries.

    Raises:
        FileError: missing or unreadable.
        ModelError: not a clickseg model, of a newer format, or damaged.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        metadata, rest = read_metadata(content)
        if _SPEC not in metadata:
            raise ModelError("an ONNX model without a clickseg spec; export it with clickseg")
        spec = ModelSpec.from_json(metadata[_SPEC])
        if metadata.get(_DIGEST) != _digest(metadata[_SPEC], rest):
            raise ModelError("damaged: its content differs from its digest")
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error.__cause__
    return spec, content


def with_spec(content: bytes, spec: ModelSpec) -> bytes:
    """A serialised ONNX model without clickseg's metadata becomes a clickseg model file."""
    text = spec.to_json()
    _, rest = read_metadata(content)
    return append_metadata(content, {_SPEC: text, _DIGEST: _digest(text, rest)})


def _digest(spec: str, rest: str) -> str:
    return hashlib.sha256(f"{spec}\n{rest}".encode()).hexdigest()
