"""Compute singular values of a generator's Jacobian and store them in a volume."""

from magnet_cli.computing.compute_volume import compute as compute
from magnet_cli.computing.compute_volume import compute_steps as compute_steps
from magnet_cli.computing.filling import fill as fill
from magnet_cli.computing.filling import missing_shards as missing_shards
from magnet_cli.computing.functions import check as check
from magnet_cli.computing.functions import function as function
from magnet_cli.computing.functions import inputs as inputs
from magnet_cli.computing.loading import load as load
from magnet_cli.computing.request import ComputeRequest as ComputeRequest
from magnet_cli.computing.request import default_rows as default_rows
from magnet_cli.computing.request import default_top_k as default_top_k
from magnet_cli.computing.request import shard_rows as shard_rows
from magnet_cli.computing.request import volume_spec as volume_spec
from magnet_cli.computing.same_function import check_settings as check_settings
from magnet_cli.computing.same_function import check_unchanged as check_unchanged
from magnet_cli.computing.same_function import probe as probe
from magnet_cli.computing.solving import solve as solve
from magnet_cli.computing.solving import values_at as values_at
from magnet_cli.computing.steps import ComputePlan as ComputePlan
from magnet_cli.computing.steps import begin as begin
from magnet_cli.computing.steps import plan as plan
from magnet_cli.computing.steps import run as run
