"""A model: what it says of itself, and the engine that runs it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from clickseg_infer.engines import Engine, Network, climb, open_engine
from clickseg_infer.errors import FileError, ModelError
from clickseg_infer.files import PathLike
from clickseg_infer.model_spec import ModelSpec
from clickseg_infer.onnx_metadata import append_metadata, drop_metadata, read_metadata

DEFAULT_MODEL = Path(__file__).parent / "models" / "light.onnx"
_SPEC, _DIGEST = "clickseg.spec", "clickseg.sha256"


@dataclass(frozen=True, eq=False)
class Model:
    """A spec and an engine that is ready; a context manager that closes it.

    Attributes:
        spec: what the model file says of itself.
        engine: what runs it.
        sha256: of the model file, in hexadecimal; empty for a model that is not from a file.
        passed_over: the faster engines that "auto" could not take, and why.
    """

    spec: ModelSpec
    engine: Engine
    sha256: str = ""
    passed_over: Mapping[str, str] = field(default_factory=dict)

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
        engine: "auto" for the first of `engines.NAMES` that runs it, or one of them.
        precision: "auto" or one of `engines.PRECISIONS`; see `open_engine`.

    Raises:
        FileError: missing or unreadable.
        ModelError: not a clickseg model, of a newer format, or damaged.
        EngineError: the engine is not there or cannot run it.
    """
    spec, network = read_network(DEFAULT_MODEL if path is None else path)
    if engine != "auto":
        return Model(spec, open_engine(network, engine, precision), network.sha256)
    opened, passed_over = climb(network, precision)
    return Model(spec, opened, network.sha256, passed_over)


def read_network(path: PathLike) -> tuple[ModelSpec, Network]:
    """The spec of a model file, and what engines compile.

    Raises:
        FileError, ModelError: as `read_model_file`.
    """
    spec, content = read_model_file(path)
    return spec, Network(content, spec.patch_size, spec.precision, Path(path))


def read_model_file(path: PathLike) -> tuple[ModelSpec, bytes]:
    """The spec and the bytes of a model file, checked against the digest that it carries.

    Raises:
        FileError: missing or unreadable.
        ModelError: not a clickseg model, of a newer format, or damaged.
    """
    if Path(path).suffix == ".plan":
        raise ModelError(f"{path}: a plan; give the .onnx file that it lies beside")
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


def check_model_name(path: Path) -> None:
    """Refuse a name that does not end in .onnx.

    Raises:
        FileError: it does not.
    """
    if path.suffix != ".onnx":
        raise FileError(f"{path}: the name must end in .onnx")


def with_spec(content: bytes, spec: ModelSpec) -> bytes:
    """A serialised ONNX model becomes a clickseg model file, whatever metadata it had."""
    text = spec.to_json()
    plain = drop_metadata(content)
    _, rest = read_metadata(plain)
    return append_metadata(plain, {_SPEC: text, _DIGEST: _digest(text, rest)})


def _digest(spec: str, rest: str) -> str:
    return hashlib.sha256(f"{spec}\n{rest}".encode()).hexdigest()
