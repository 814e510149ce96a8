"""Index a volume: log-volumes of its rows for one k, their weights, draws and diagnostics, without torch.

An index takes nine bytes for each row, thirteen with prior correction.
"""

from magnet_cli.index.build_index import build as build
from magnet_cli.index.build_index import default_top_k as default_top_k
from magnet_cli.index.build_index import first as first
from magnet_cli.index.build_index import half as half
from magnet_cli.index.build_index import log_volume as log_volume
from magnet_cli.index.build_index import of_labels as of_labels
from magnet_cli.index.build_index import rescales as rescales
from magnet_cli.index.diagnostics import DISPLACED_WARNING as DISPLACED_WARNING
from magnet_cli.index.diagnostics import displaced_share as displaced_share
from magnet_cli.index.diagnostics import effective_size as effective_size
from magnet_cli.index.diagnostics import largest_useful_rho as largest_useful_rho
from magnet_cli.index.diagnostics import top_share as top_share
from magnet_cli.index.diagnostics import useful_draw as useful_draw
from magnet_cli.index.draws import Draw as Draw
from magnet_cli.index.draws import choose as choose
from magnet_cli.index.draws import draw as draw
from magnet_cli.index.index import Ball as Ball
from magnet_cli.index.index import Index as Index
from magnet_cli.index.index import Part as Part
from magnet_cli.index.messages import EVEN_PRIOR as EVEN_PRIOR
from magnet_cli.index.messages import RESCALED as RESCALED
from magnet_cli.index.messages import density_words as density_words
from magnet_cli.index.messages import target as target
from magnet_cli.index.messages import warnings as warnings
from magnet_cli.index.prior_correction import DEFAULT_MASS as DEFAULT_MASS
from magnet_cli.index.prior_correction import LogPrior as LogPrior
from magnet_cli.index.prior_correction import ball as ball
from magnet_cli.index.prior_correction import check_correction as check_correction
from magnet_cli.index.prior_correction import corrected as corrected
from magnet_cli.index.prior_correction import has_ball as has_ball
from magnet_cli.index.prior_correction import is_even as is_even
from magnet_cli.index.prior_correction import log_prior as log_prior
from magnet_cli.index.size_table import SOME_RHOS as SOME_RHOS
from magnet_cli.index.size_table import effective_sizes as effective_sizes
from magnet_cli.index.size_table import some_top_ks as some_top_ks
from magnet_cli.index.storage import current as current
from magnet_cli.index.storage import path_of as path_of
from magnet_cli.index.storage import prior_path as prior_path
from magnet_cli.index.storage import store as store
from magnet_cli.index.storage import store_prior as store_prior
from magnet_cli.index.storage import stored as stored
from magnet_cli.index.storage import stored_prior as stored_prior
from magnet_cli.index.summary import summary as summary
