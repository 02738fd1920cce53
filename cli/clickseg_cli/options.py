"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[Path | None, typer.Option(help="Model file; the bundled default without it.")]
Engine = Annotated[
    str,
    typer.Option(help="auto, or tensorrt, tensorrt-rtx, onnxruntime-cuda, openvino, onnxruntime."),
]
Precision = Annotated[str, typer.Option(help="auto, or float32, bfloat16, float16, int8.")]
Refine = Annotated[
    str,
    typer.Option(
        help="none, or fbrs: tune the network until every click is obeyed (fbrs-a, -b or -c say "
        "where; fbrs is fbrs-b)."
    ),
]
StartMask = Annotated[
    Path | None, typer.Option("--mask", help="The mask that the clicks correct, if any.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def three_numbers(text: str) -> tuple[int, int, int]:
    """Of "Z,Y,X".

    Raises:
        ConfigError: not three whole numbers.
    """
    from clickseg_infer.errors import ConfigError

    try:
        z, y, x = (int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"a patch size is three whole numbers Z,Y,X, not {text!r}") from error
    return z, y, x
