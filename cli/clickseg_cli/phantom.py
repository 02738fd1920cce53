"""`clickseg phantom`."""

from pathlib import Path
from typing import Annotated

import typer


def phantom(
    out: Annotated[Path, typer.Argument(help="The folder to make, in Decathlon layout.")],
    cases: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same cases.")] = 0,
) -> None:
    """Generate abdomen-like CTs with labels."""
    from clickseg_cli.progress import progress_bar
    from clickseg_train.phantom import write_phantoms

    with progress_bar("phantoms") as report:
        write_phantoms(out, cases=cases, seed=seed, on_case=report)
    print(f"{out}: {cases} cases")
