"""Draw, render and judge over a grid of rho and truncation."""

from magnet_cli.evaluating.sweep.choice import estimate as estimate
from magnet_cli.evaluating.sweep.choice import picked_by as picked_by
from magnet_cli.evaluating.sweep.reference import sha256 as sha256
from magnet_cli.evaluating.sweep.run import check as check
from magnet_cli.evaluating.sweep.run import check_extras as check_extras
from magnet_cli.evaluating.sweep.run import check_rows as check_rows
from magnet_cli.evaluating.sweep.run import concluded as concluded
from magnet_cli.evaluating.sweep.run import default_out as default_out
from magnet_cli.evaluating.sweep.run import discard as discard
from magnet_cli.evaluating.sweep.run import fewest_for_fid as fewest_for_fid
from magnet_cli.evaluating.sweep.run import finish as finish
from magnet_cli.evaluating.sweep.run import finished as finished
from magnet_cli.evaluating.sweep.run import planned as planned
from magnet_cli.evaluating.sweep.run import read as read
from magnet_cli.evaluating.sweep.run import told as told
from magnet_cli.evaluating.sweep.run import write as write
from magnet_cli.evaluating.sweep.spec import Judges as Judges
from magnet_cli.evaluating.sweep.spec import Pool as Pool
from magnet_cli.evaluating.sweep.spec import SweepSpec as SweepSpec
