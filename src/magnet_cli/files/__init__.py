"""Bytes on disk: atomic writing, documents, folders of results, arrays, images, plots, checkpoints."""
