"""A checkpoint, or a model that is exported already, becomes a model of the wanted precision."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from clickseg_export.parity import Agreement, Parity, compare_models
from clickseg_infer.atomic_write import check_writable, write_whole
from clickseg_infer.errors import ConfigError, ModelError, ParityError
from clickseg_infer.file_grid import Index
from clickseg_infer.model import (
    check_model_name,
    read_model_file,
    read_structures,
    with_spec,
)
from clickseg_infer.model_spec import ModelSpec, PrecisionCheck
from clickseg_train.evaluate import ObjectResult

PRECISIONS = {"fp32": "float32", "fp16": "float16", "int8": "int8"}
"""As the command line names them, and as a spec does."""

MOST_DROP = 0.005
"""By how much the mean Dice on validation cases may fall for fewer bits."""


@dataclass(frozen=True)
class CheckpointOptions:
    """What can be chosen only while the checkpoint is there; see `onnx_model`."""

    half_weights: bool = False
    threshold: float | None = None
    patch: Index | None = None
    heads: bool = True


@dataclass(frozen=True)
class Exported:
    """What was written, and how far it is from what it was made of.

    Attributes:
        model: the `.onnx` file.
        parity: engine beside torch, if it was made of a checkpoint.
        agreement: the masks of fewer bits beside float32's on one batch, if there are fewer bits.
        check: the same on validation cases, if any were given.
    """

    model: Path
    parity: Parity | None = None
    agreement: Agreement | None = None
    check: PrecisionCheck | None = None


def export_model(
    source: Path,
    out: Path | None,
    options: CheckpointOptions = CheckpointOptions(),
    *,
    precision: str | None = None,
    datasets: Sequence[Path] = (),
    force: bool = False,
    report: Callable[[ObjectResult], None] = lambda _: None,
) -> Exported:
    """Write the model that is asked for; an exported one that needs no change stays where it is.

    Args:
        source: a checkpoint of `clickseg train`, or an `.onnx` model.
        out: the `.onnx` file to write; None for an exported model that needs no change.
        options: of a checkpoint.
        precision: one of PRECISIONS; None for the one that the source has.
        datasets: Decathlon folders: their training cases calibrate int8, their validation cases
            show what fewer bits cost.
        force: write the model however much Dice falls, or without having measured it.
        report: called after each object of each model that is measured.

    Raises:
        ConfigError: arguments that do not go together.
        ParityError: fewer bits cost more than MOST_DROP; nothing is written.
        FileError, CheckpointError, ModelError, DatasetError, EngineError: as what is called.
    """
    exported = source.suffix == ".onnx"
    before = read_model_file(source) if exported else None
    own = before[0].precision if before is not None else "float32"
    wanted = _wanted(precision, own, source)
    if exported and options != CheckpointOptions():
        raise ConfigError(
            "weights in 16 bits, a threshold, a patch size and no heads need the checkpoint"
        )
    if out is None and not (exported and wanted == own):
        raise ConfigError("name the model to write: -o MODEL.onnx")
    if wanted == own and (datasets or force):
        raise ConfigError("cases and force are for a model that is made fp16 or int8")
    if wanted != own:
        _check_fewer_bits(wanted, datasets, force)
    if out is not None:
        check_model_name(out)
        check_writable(out, source)
    parity = agreement = None
    if before is None:
        from clickseg_export.onnx_file import onnx_model

        kept = replace(options, heads=options.heads and wanted == own)
        before, parity = onnx_model(source, **asdict(kept))
    after = before
    if wanted != own:
        after = _fewer_bits(before, wanted, datasets)
        agreement = compare_models(before, after)
        if datasets:
            after = _measured(before, after, datasets, force, report)
        spec, content = after
        after = spec, with_spec(content, spec, structures=read_structures(before[1]))
    spec, content = after
    if out is None:
        return Exported(source)
    write_whole(out, content)
    return Exported(out, parity, agreement, spec.precision_check)


def _wanted(precision: str | None, own: str, source: Path) -> str:
    """The precision of the graph that is asked for, in a spec's words."""
    if precision is None:
        return own
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}, allowed are {', '.join(PRECISIONS)}")
    if own not in ("float32", PRECISIONS[precision]):
        raise ModelError(f"{source}: is {own}; {precision} needs the float32 model")
    return PRECISIONS[precision]


def _check_fewer_bits(wanted: str, datasets: Sequence[Path], force: bool) -> None:
    """Refuse what cannot be made or measured before anything is."""
    from clickseg_export.graph_precision import check_packages

    if wanted == "int8" and not datasets:
        raise ConfigError("int8 is calibrated on real patches: name Decathlon folders with --cases")
    if not (datasets or force):
        raise ConfigError(
            "what fp16 costs is measured on validation cases: name Decathlon folders with --cases, "
            "or write it unmeasured with --force"
        )
    check_packages(wanted)


def _fewer_bits(
    before: tuple[ModelSpec, bytes], precision: str, datasets: Sequence[Path]
) -> tuple[ModelSpec, bytes]:
    from clickseg_export.graph_precision import to_float16, to_int8
    from clickseg_export.precision_check import calibration_patches

    if precision == "float16":
        return to_float16(*before)
    return to_int8(*before, calibration_patches(*before, datasets))


def _measured(
    before: tuple[ModelSpec, bytes],
    after: tuple[ModelSpec, bytes],
    datasets: Sequence[Path],
    force: bool,
    report: Callable[[ObjectResult], None],
) -> tuple[ModelSpec, bytes]:
    """The model with what it costs in its spec."""
    from clickseg_export.precision_check import check_precision

    check = check_precision(before, after, datasets, report)
    spec, content = after
    if check.drop > MOST_DROP and not force:
        raise ParityError(
            f"{spec.precision} lowers the mean Dice after {check.clicks} clicks on {check.objects} "
            f"objects from {check.float32:.4f} to {check.dice:.4f}, by more than {MOST_DROP}; "
            "--force writes it all the same"
        )
    spec = replace(spec, precision_check=check)
    return spec, with_spec(content, spec)
