"""Every performance figure of the project, each beside its peers; ``python -m benchmarks`` prints them all."""

import atexit
import os

# With torch loaded, DuckDB's binding takes its own modules for leaks as the interpreter ends, and prints a page on it.
atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))
