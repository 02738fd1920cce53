"""`clickseg export`."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    checkpoint: Annotated[Path, typer.Argument(help="RUN/last.ckpt of clickseg train.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The model file, .onnx.")],
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
) -> None:
    """Export a checkpoint to one self-describing model file, checked against torch."""
    from clickseg_export.onnx_file import export_onnx

    parity = export_onnx(checkpoint, out, half_weights=half_weights, threshold=threshold)
    print(f"{out}: engine and torch differ by at most {parity.largest:.1e} in a logit")
    if half_weights:
        print(
            f"16-bit weights move logits by at most {parity.rounding:.1e} "
            f"and change {parity.flipped:.4%} of the voxels"
        )
