"""A volume: a folder of shards with latents and singular values."""

from magnet_cli.volume.shard import Shard as Shard
from magnet_cli.volume.store import Volume as Volume
