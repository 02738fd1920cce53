"""Run every benchmark, each in a process of its own, and write the tables: `make benchmarks`."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS = (
    *("accuracy", "engines", "clicking", "start", "files"),
    *("click_maps", "resampling", "stitching", "tables"),
)

for script in SCRIPTS:
    subprocess.run([sys.executable, HERE / f"{script}.py"], check=True)
