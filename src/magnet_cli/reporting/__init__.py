"""Write a report as one HTML page."""

from magnet_cli.reporting.write_report import ReportPlan as ReportPlan
from magnet_cli.reporting.write_report import ReportRequest as ReportRequest
from magnet_cli.reporting.write_report import kind_of as kind_of
from magnet_cli.reporting.write_report import plan as plan
from magnet_cli.reporting.write_report import run as run
