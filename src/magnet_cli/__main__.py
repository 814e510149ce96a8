"""python -m magnet_cli."""

from magnet_cli.cli.app import app

app()
