"""Latents with the attribute scores of their images."""

from magnet_cli.editing.scored.scored import EPOCH as EPOCH
from magnet_cli.editing.scored.scored import Attribute as Attribute
from magnet_cli.editing.scored.scored import Scored as Scored
from magnet_cli.editing.scored.scored import archive as archive
from magnet_cli.editing.scored.scored import class_number as class_number
from magnet_cli.editing.scored.scored import member as member
from magnet_cli.editing.scored.scored import of_probabilities as of_probabilities
from magnet_cli.editing.scored.scored import open_scored as open_scored
from magnet_cli.editing.scored.scored import sides as sides
