"""Faults injected into a replay: what each does to a world that is otherwise the same, and nothing else."""
