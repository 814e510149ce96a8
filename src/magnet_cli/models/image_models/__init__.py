"""Image models: feature extractors and classifiers, composed with a generator or scoring images."""

from magnet_cli.models.image_models.image_model import ImageModel as ImageModel
from magnet_cli.models.image_models.image_model import load as load
from magnet_cli.models.image_models.scorer import ImageScorer as ImageScorer
from magnet_cli.models.image_models.scorer import load_scorer as load_scorer
from magnet_cli.models.image_models.scorer import load_scorers as load_scorers
from magnet_cli.models.image_models.scorer import with_memory as with_memory
