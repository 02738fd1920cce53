"""Run every benchmark and write the tables: `make benchmarks`."""

import accuracy
import engines
import tables

accuracy.main()
engines.main()
tables.main()
