"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[Path | None, typer.Option(help="Model file; the bundled default without it.")]
Engine = Annotated[str, typer.Option(help="auto, openvino or onnxruntime.")]
Precision = Annotated[str, typer.Option(help="auto, float32 or bfloat16.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
