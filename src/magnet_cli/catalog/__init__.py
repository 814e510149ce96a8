"""Artifacts: the pinned files that magnet works with, where they come from and where they are kept."""
