"""Image models: feature extractors and classifiers."""

from magnet_cli.models.image_models.image_model import ImageModel as ImageModel
from magnet_cli.models.image_models.image_model import Judge as Judge
from magnet_cli.models.image_models.image_model import judge as judge
from magnet_cli.models.image_models.image_model import load as load
from magnet_cli.models.image_models.image_model import remembering as remembering
