"""`clickseg export`."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    source: Annotated[
        Path,
        typer.Argument(help="RUN/last.ckpt of clickseg train, or a model that is exported."),
    ],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The model file, .onnx.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, fp16 or int8: in what the model computes.")
    ] = None,
    cases: Annotated[
        list[Path] | None,
        typer.Option(help="Decathlon folder that fp16 or int8 is measured on. Repeatable."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write it even if fewer bits cost too much.")
    ] = False,
    half_weights: Annotated[
        bool,
        typer.Option(
            "--half-weights", help="Store weights in 16 bits: half the file, computed in 32."
        ),
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Probability above which a voxel is the object; choose it on validation."
        ),
    ] = None,
    patch: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Patch size, multiples of 16.")
    ] = None,
    no_heads: Annotated[
        bool, typer.Option("--no-heads", help="Leave out what --refine needs; quicker.")
    ] = False,
    trt: Annotated[
        bool, typer.Option("--trt", help="Also compile a TensorRT plan beside the model.")
    ] = False,
    builder: Annotated[
        str | None, typer.Option(help="auto, tensorrt (needs a GPU) or tensorrt-rtx.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Most patches at once, of the plan; 4 without it.")
    ] = None,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SMxx", help="GPU that TensorRT-RTX compiles for, such as SM89. Repeatable."
        ),
    ] = None,
    triton: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write a model repository for NVIDIA Triton."),
    ] = None,
) -> None:
    """Export a checkpoint to one self-describing model file, checked against torch.

    A model that is exported already can be compiled (--trt), served (--triton), or made one that
    computes in fewer bits (--precision, -o).
    """
    import sys

    from clickseg_export.export_model import CheckpointOptions, export_model
    from clickseg_export.tensorrt_plan import PlanOptions, check_plan, export_plan

    from clickseg_cli.options import three_numbers
    from clickseg_infer.errors import ConfigError

    given = {
        "builder": builder,
        "batch": batch,
        "capabilities": tuple(compute_capability or ()) or None,
    }
    plan = PlanOptions(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    if not trt and plan != PlanOptions():
        raise ConfigError("--builder, --batch and --compute-capability go with --trt")
    if out is None and not trt and triton is None:
        raise ConfigError("nothing to do: give -o MODEL.onnx, --trt or --triton DIR")
    if trt:
        check_plan(out or source, plan)
    size = three_numbers(patch) if patch is not None else None
    options = CheckpointOptions(half_weights, threshold, size, heads=not no_heads)
    exported = export_model(
        source,
        out,
        options,
        precision=precision,
        datasets=cases or (),
        force=force,
        report=lambda case: print(f"{case.image} {case.label_value}", file=sys.stderr),
    )
    model = exported.model
    if out is not None:
        print(f"{model}: written")
    if exported.parity is not None:
        found = exported.parity
        print(f"engine and torch differ by at most {found.largest:.1e} in a logit")
        if found.gradients is not None:
            print(f"heads and torch differ by at most {found.gradients:.1e} of a gradient")
        if found.structures is not None:
            print(f"structures: engine and torch differ by at most {found.structures:.1e}")
        if half_weights:
            print(
                f"16-bit weights move logits by at most {found.rounding:.1e} "
                f"and change {found.flipped:.4%} of the voxels"
            )
    if exported.agreement is not None:
        other = exported.agreement
        print(
            f"{precision} moves logits by at most {other.largest:.1e} and changes "
            f"{other.flipped:.4%} of the voxels of a patch ({other.engine}, CPU)"
        )
    if exported.check is not None:
        check = exported.check
        print(
            f"mean Dice of {check.objects} objects after {check.clicks} clicks: "
            f"{check.dice:.4f}, {check.float32:.4f} in fp32"
        )
    if trt:
        path, record = export_plan(model, plan)
        print(
            f"{path}: compiled by {record.builder} {record.version} for "
            f"{record.device or ', '.join(record.compute_capabilities) or 'SM80 and later'}, "
            f"{record.precision}, up to {record.profile.largest} patches"
        )
    if triton is not None:
        from clickseg_export.triton import write_repository

        folders = write_repository(model, triton)
        for folder in folders:
            print(f"{folder}: for NVIDIA Triton")
        if trt and len(folders) == 1:
            print("without the plan: Triton runs TensorRT's, not TensorRT-RTX's")
