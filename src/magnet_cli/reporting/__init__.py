"""Write a report as one HTML page."""

from magnet_cli.reporting.report import Subject as Subject
from magnet_cli.reporting.report import default_out as default_out
from magnet_cli.reporting.report import finished as finished
from magnet_cli.reporting.report import write as write
