"""Generator architectures, one file per family."""
