"""A model: what it says of itself, and the engine that runs it."""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

from clickseg_infer.engines import Engine, Network, climb, open_engine
from clickseg_infer.engines.shared import SharedEngine
from clickseg_infer.errors import FileError, ModelError
from clickseg_infer.files import PathLike
from clickseg_infer.model_spec import ModelSpec
from clickseg_infer.onnx_metadata import (
    append_metadata,
    digest_without_metadata,
    drop_metadata,
    read_metadata,
)
from clickseg_infer.refinement.heads import Head, heads_from_json, heads_to_json
from clickseg_infer.refinement.refiner import (
    Refiner,
    check_method,
    giving_tensors,
    head_for,
    open_refiner,
)
from clickseg_infer.structures import Structures, open_structures

DEFAULT_MODEL = Path(__file__).parent / "models" / "light.onnx"
_SPEC, _HEADS, _DIGEST = "clickseg.spec", "clickseg.heads", "clickseg.sha256"
_STRUCTURES = "clickseg.structures"


@dataclass(frozen=True, eq=False)
class Model:
    """A spec and an engine that is ready; a context manager that closes it.

    Attributes:
        spec: what the model file says of itself.
        engine: what runs it.
        sha256: of the model file, in hexadecimal; empty for a model that is not from a file.
        passed_over: the faster engines that "auto" could not take, and why.
        refiner: what has answers obey their clicks; None where nothing does. With one, the engine
            gives the tensors that it reads.
        structures: what tells structures of the body apart; None for a model that knows none.
    """

    spec: ModelSpec
    engine: Engine
    sha256: str = ""
    passed_over: Mapping[str, str] = field(default_factory=dict)
    refiner: Refiner | None = None
    structures: Structures | None = None

    @property
    def refine(self) -> str:
        """How answers are refined: "none", f-BRS's insertion point, or another refiner's name."""
        return "none" if self.refiner is None else self.refiner.point

    def shared(self) -> "Model":
        """The same model for several threads, each in its turn; closing it closes this one."""
        refiner = None if self.refiner is None else self.refiner.shared()
        structures = None if self.structures is None else self.structures.shared()
        engine = SharedEngine(self.engine)
        return replace(self, engine=engine, refiner=refiner, structures=structures)

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
        """Close the engine, and those of what is beside it."""
        for part in (self.engine, self.refiner, self.structures):
            if part is not None:
                part.close()


def load_model(
    path: PathLike | None = None,
    *,
    engine: str = "auto",
    precision: str = "auto",
    refine: str = "none",
) -> Model:
    """Open a model file; without a path, the bundled default.

    Args:
        path: an `.onnx` file that clickseg exported.
        engine: "auto" for the first of `engines.NAMES` that runs it, or one of them.
        precision: "auto" or one of `engines.PRECISIONS`; see `open_engine`.
        refine: one of `refinement.METHODS`. With "fbrs" every clicked voxel carries its click's
            label: f-BRS tunes the network where it disagrees.

    Raises:
        FileError: missing or unreadable.
        ModelError: not a clickseg model, of a newer format, damaged, or without what refines.
        EngineError: the engine is not there or cannot run it, or an unknown way to refine.
    """
    check_method(refine)
    spec, network = read_network(DEFAULT_MODEL if path is None else path)
    asked = network
    if refine != "none":
        point, head = head_for(refine, read_heads(network.content))
        asked = giving_tensors(network, head)
    opened, passed_over = _opened(asked, engine, precision)
    model = Model(spec, opened, network.sha256, passed_over)
    try:
        graph = read_structures(network.content)
        if graph:
            model = replace(model, structures=open_structures(graph, spec, engine, precision))
        if refine != "none":
            refiner = open_refiner(network, head, point, opened.name, opened.precision)
            model = replace(model, refiner=refiner)
    except BaseException:
        model.close()
        raise
    return model


def _opened(network: Network, engine: str, precision: str) -> tuple[Engine, Mapping[str, str]]:
    """An engine that runs a network, and why faster ones do not, where "auto" was asked for."""
    if engine == "auto":
        return climb(network, precision)
    return open_engine(network, engine, precision), {}


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
        metadata = read_metadata(content)
        if _SPEC not in metadata:
            raise ModelError("an ONNX model without a clickseg spec; export it with clickseg")
        spec = ModelSpec.from_json(metadata[_SPEC])
        beside = [metadata[key] for key in (_HEADS, _STRUCTURES) if key in metadata]
        if metadata.get(_DIGEST) != _digest(metadata[_SPEC], beside, content):
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


def read_heads(content: bytes) -> dict[str, Head]:
    """The heads of a model file's content, by insertion point; none of a model without any.

    Raises:
        ModelError: they cannot be read.
    """
    return heads_from_json(read_metadata(content).get(_HEADS, "{}"))


def read_structures(content: bytes) -> bytes:
    """The graph that tells structures apart, of a model file's content; empty if it has none.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        return base64.b64decode(read_metadata(content).get(_STRUCTURES, ""), validate=True)
    except ValueError as error:
        raise ModelError(f"its structures cannot be read: {error}") from error


def with_spec(
    content: bytes,
    spec: ModelSpec,
    heads: Mapping[str, Head] | None = None,
    structures: bytes = b"",
) -> bytes:
    """A serialised ONNX model becomes a clickseg model file, whatever metadata it had.

    Args:
        content: the model.
        spec: of it.
        heads: what f-BRS needs.
        structures: a serialised ONNX model that tells `spec.structures` apart.
    """
    text, beside = spec.to_json(), {}
    if heads:
        beside[_HEADS] = heads_to_json(heads)
    if structures:
        beside[_STRUCTURES] = base64.b64encode(structures).decode()
    plain = drop_metadata(content)
    digest = _digest(text, beside.values(), plain)
    return append_metadata(plain, {_SPEC: text, _DIGEST: digest, **beside})


def _digest(spec: str, beside: Iterable[str], content: bytes) -> str:
    parts = [spec, *beside, digest_without_metadata(content)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
