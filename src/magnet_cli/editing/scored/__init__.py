"""Latents with the attribute scores of their images, and the files that they are read from."""

from magnet_cli.editing.scored.attribute import Attribute as Attribute
from magnet_cli.editing.scored.attribute import class_index as class_index
from magnet_cli.editing.scored.attribute import cut_sides as cut_sides
from magnet_cli.editing.scored.attribute import from_probabilities as from_probabilities
from magnet_cli.editing.scored.folders import ScoredLatents as ScoredLatents
from magnet_cli.editing.scored.folders import open_scored as open_scored
from magnet_cli.editing.scored.generator import load_generator as load_generator
