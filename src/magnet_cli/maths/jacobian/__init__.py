"""Singular values of the Jacobian of any function that torch.func can differentiate."""

from magnet_cli.maths.jacobian.leading import singular_values as singular_values
from magnet_cli.maths.jacobian.precision import PRECISIONS as PRECISIONS
from magnet_cli.maths.jacobian.precision import RANK_FLOOR as RANK_FLOOR
from magnet_cli.maths.jacobian.solvers import exact as exact
