"""Read checkpoints of every format without running code."""

from magnet_cli.files.checkpoints.contents import read as read
from magnet_cli.files.checkpoints.places import Shapes as Shapes
