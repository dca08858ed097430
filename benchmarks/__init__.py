"""Every performance figure of the project, each beside its peers; ``python -m benchmarks`` prints them all."""
