"""`python -m clickseg_train` is `clickseg train`, for launchers such as `torchrun`."""

import importlib
import sys

# The command line stands above this package, which therefore must not import it by name.
importlib.import_module("clickseg_cli.main").main(["train", *sys.argv[1:]])
