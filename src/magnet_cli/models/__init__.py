"""Generators and image models: load them, call them."""

from magnet_cli.models.generator import FAMILIES as FAMILIES
from magnet_cli.models.generator import OUTPUTS as OUTPUTS
from magnet_cli.models.generator import Generator as Generator
from magnet_cli.models.generator import check_device as check_device
from magnet_cli.models.generator import default_device as default_device
from magnet_cli.models.generator import is_image_shape as is_image_shape
from magnet_cli.models.generator import load as load
from magnet_cli.models.generator import parse_devices as parse_devices
