"""Generator architectures, one file per family; `generator.py` says what a family has to have."""
