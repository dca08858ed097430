"""Whether a landed day may be used: what it looks like beside the days before it, and who let a faulty one pass."""
