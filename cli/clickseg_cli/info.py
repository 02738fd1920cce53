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
    from clickseg_infer.engines import NAMES, available, precisions
    from clickseg_infer.model import DEFAULT_MODEL, read_model_file

    path = DEFAULT_MODEL if model is None else model
    spec, content = read_model_file(path)
    print(f"clickseg {__version__}")
    print(f"model {path.name}, {len(content) / 2**20:.1f} MiB")
    for key, value in json.loads(spec.to_json()).items():
        print(f"  {key}: {json.dumps(value)}")
    installed = available()
    for name in NAMES:
        state = ", ".join(precisions(name)) if name in installed else "not installed"
        print(f"engine {name}: {state}" + (" (auto)" if installed[:1] == (name,) else ""))
