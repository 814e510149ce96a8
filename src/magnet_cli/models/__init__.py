"""Generators and image models: load them, call them."""

from magnet_cli.models.conversion import convert as convert
from magnet_cli.models.devices import check_device as check_device
from magnet_cli.models.devices import default_device as default_device
from magnet_cli.models.devices import parse_devices as parse_devices
from magnet_cli.models.families import FAMILIES as FAMILIES
from magnet_cli.models.families import describe_families as describe_families
from magnet_cli.models.generator import OUTPUTS as OUTPUTS
from magnet_cli.models.generator import Generator as Generator
from magnet_cli.models.loading import load as load
from magnet_cli.models.outputs import is_image_shape as is_image_shape
