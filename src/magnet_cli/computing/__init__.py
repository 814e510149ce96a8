"""Fill a volume with singular values."""

from magnet_cli.computing.filler import asked as asked
from magnet_cli.computing.filler import check as check
from magnet_cli.computing.filler import check_settings as check_settings
from magnet_cli.computing.filler import check_unchanged as check_unchanged
from magnet_cli.computing.filler import default_rows as default_rows
from magnet_cli.computing.filler import default_top_k as default_top_k
from magnet_cli.computing.filler import fill as fill
from magnet_cli.computing.filler import function as function
from magnet_cli.computing.filler import inputs as inputs
from magnet_cli.computing.filler import probe as probe
from magnet_cli.computing.filler import shard_rows as shard_rows
from magnet_cli.computing.filler import singular_values as singular_values
from magnet_cli.computing.filler import solve as solve
from magnet_cli.computing.filler import test_matrices as test_matrices
from magnet_cli.computing.filler import todo as todo
