"""Draw, render and evaluate over a grid of rho and truncation."""

from magnet_cli.evaluating.sweep.spec import Pool as Pool
from magnet_cli.evaluating.sweep.spec import Scorers as Scorers
from magnet_cli.evaluating.sweep.spec import SweepSpec as SweepSpec
from magnet_cli.evaluating.sweep.sweep import SweepPlan as SweepPlan
from magnet_cli.evaluating.sweep.sweep import SweepRequest as SweepRequest
from magnet_cli.evaluating.sweep.sweep import check as check
from magnet_cli.evaluating.sweep.sweep import plan as plan
from magnet_cli.evaluating.sweep.sweep import run as run
