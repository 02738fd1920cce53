"""`clickseg info`."""

from pathlib import Path
from typing import Annotated

import typer


def info(
    model: Annotated[
        Path | None, typer.Argument(help="Model file; the bundled default without it.")
    ] = None,
) -> None:
    """Show what a model says of itself, and which engines and precisions this machine has."""
    import json

    from clickseg_infer import __version__
    from clickseg_infer.engines import NAMES, precisions
    from clickseg_infer.errors import EngineError
    from clickseg_infer.model import DEFAULT_MODEL, read_model_file

    path = DEFAULT_MODEL if model is None else model
    spec, content = read_model_file(path)
    print(f"clickseg {__version__}")
    print(f"model {path.name}, {len(content) / 2**20:.1f} MiB")
    for key, value in json.loads(spec.to_json()).items():
        print(f"  {key}: {json.dumps(value)}")
    for name in NAMES:  # in the order in which `auto` tries them
        try:
            print(f"engine {name}: {', '.join(precisions(name))}")
        except EngineError as error:
            print(f"engine {name}: none, {error}")
