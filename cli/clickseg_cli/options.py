"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[Path | None, typer.Option(help="Model file; the bundled default without it.")]
Engine = Annotated[str, typer.Option(help="auto, openvino or onnxruntime.")]
Precision = Annotated[str, typer.Option(help="auto, float32 or bfloat16.")]
StartMask = Annotated[
    Path | None, typer.Option("--mask", help="The mask that the clicks correct, if any.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
