"""The command line: one file per command, no logic, nothing heavy imported before it is needed."""
