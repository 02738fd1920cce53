"""Build hook: the viewer goes into what is built, if npm can be had.

Whoever only wants to segment needs no npm: the build warns and goes on, and `clickseg demo` says
what is missing. With CLICKSEG_RELEASE set, as `make wheel` does, it fails instead.
"""

import os
import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FETCH = Path(__file__).parent / "clickseg_infer" / "server" / "fetch_viewer.py"


class ViewerHook(BuildHookInterface):
    """Gets NiiVue before a wheel, an sdist or an editable install is made."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Get it if it is not there; what is there already is not fetched again."""
        viewer = runpy.run_path(str(_FETCH))
        if viewer["is_current"]():
            return
        try:
            viewer["fetch"]()
        except viewer["ViewerError"] as error:
            if os.environ.get("CLICKSEG_RELEASE"):
                raise
            self.app.display_warning(f"built without the viewer of `clickseg demo`: {error}")
