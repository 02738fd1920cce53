"""The `clickseg` command."""

import sys
from collections.abc import Sequence

import typer

from clickseg_cli.bench import bench
from clickseg_cli.demo import demo
from clickseg_cli.evaluate import evaluate
from clickseg_cli.export import export
from clickseg_cli.info import info
from clickseg_cli.phantom import phantom
from clickseg_cli.replay import replay
from clickseg_cli.segment import segment
from clickseg_cli.train import train
from clickseg_infer.errors import ClicksegError

_EXTRAS = {
    **dict.fromkeys(("torch", "monai", "onnx", "onnxscript"), "train"),
    "nncf": "int8",
    "onnxruntime": "cpu",
    **dict.fromkeys(("fastapi", "uvicorn"), "demo"),
}
"""What brings a package that a plain install has not."""

app = typer.Typer(
    help="Click-based 3D segmentation of CT.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (segment, demo, replay, bench, train, export, evaluate, phantom, info):
    app.command()(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what clickseg refuses becomes one line and exit code 2."""
    try:
        app(args=arguments, prog_name="clickseg")
    except ClicksegError as error:
        print(f"clickseg: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        print(
            f"clickseg: this command needs {package}: pip install 'clickseg[{_EXTRAS[package]}]'",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
