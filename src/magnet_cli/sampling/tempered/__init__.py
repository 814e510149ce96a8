"""Draw new latents for a rho beyond the rows of a volume."""

from magnet_cli.sampling.tempered.measure import Measure as Measure
from magnet_cli.sampling.tempered.run import Schedule as Schedule
from magnet_cli.sampling.tempered.run import TemperedRun as TemperedRun
from magnet_cli.sampling.tempered.run import TemperedSpec as TemperedSpec
from magnet_cli.sampling.tempered.temper import advance as advance
from magnet_cli.sampling.tempered.temper import cost as cost
from magnet_cli.sampling.tempered.temper import left as left
from magnet_cli.sampling.tempered.temper import num_islands as num_islands
from magnet_cli.sampling.tempered.temper import num_moves as num_moves
from magnet_cli.sampling.tempered.temper import outcome as outcome
from magnet_cli.sampling.tempered.temper import r_hat as r_hat
