"""`clickseg info`."""

from pathlib import Path
from typing import Annotated

import typer


def info(
    model: Annotated[
        Path | None, typer.Argument(help="Model file; the bundled default without it.")
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache", help="List the cache of compiled models instead.")
    ] = False,
    clear_cache: Annotated[
        bool, typer.Option("--clear-cache", help="Empty the cache of compiled models.")
    ] = False,
) -> None:
    """Show what a model says of itself, and which engines run it on this machine."""
    from clickseg_infer.errors import ConfigError

    if sum((cache, clear_cache, model is not None)) > 1:
        raise ConfigError("give a model, --cache or --clear-cache")
    if clear_cache:
        _clear()
    elif cache:
        _list()
    else:
        _show(model)


def _show(model: Path | None) -> None:
    import json

    from clickseg_infer import __version__
    from clickseg_infer.engines import NAMES, precisions
    from clickseg_infer.engines.onnxruntime_any import double_installation
    from clickseg_infer.errors import EngineError
    from clickseg_infer.model import DEFAULT_MODEL, load_model, read_heads, read_network

    path = DEFAULT_MODEL if model is None else model
    with load_model(path) as loaded:
        taken, passed_over = loaded.engine.name, loaded.passed_over
    spec, network = read_network(path)
    print(f"clickseg {__version__}")
    print(f"model {path.name}, {len(network.content) / 2**20:.1f} MiB")
    for key, value in json.loads(spec.to_json()).items():
        print(f"  {key}: {json.dumps(value)}")
    print(f"  refine: {', '.join(['none', *read_heads(network.content)])}")
    for name in NAMES:
        try:
            told = passed_over.get(name) or ", ".join(precisions(name, network))
        except EngineError as error:
            told = str(error)
        print(f"engine {name}: {told}{' (auto takes it)' if name == taken else ''}")
    if double_installation():
        print(double_installation())


def _list() -> None:
    import time

    from clickseg_infer.engines.compiled_cache import cache_folder, list_entries

    entries = list_entries()
    print(f"{cache_folder() or 'no cache'}: {len(entries)} compiled models")
    for entry in entries:
        about = entry.about or {}
        told = [str(about[key]) for key in ("engine", "version", "precision") if key in about]
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        print(
            f"  {' '.join(told) or 'unreadable'}, model {str(about.get('model', '?'))[:12]}, "
            f"{entry.size / 2**20:.1f} MiB, used {used}"
        )


def _clear() -> None:
    from clickseg_infer.engines.compiled_cache import cache_folder, clear

    print(f"{cache_folder() or 'no cache'}: {clear()} files deleted")
