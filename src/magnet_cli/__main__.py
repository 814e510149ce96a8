"""python -m magnet_cli."""

from magnet_cli.cli import app

app()
