"""From the tables of a run to a report that people read: one HTML file."""

from retinue.reporting.activity import ActivityTables, activity_tables
from retinue.reporting.report import build_report
from retinue.reporting.tables import ReportTables

__all__ = ["ActivityTables", "ReportTables", "activity_tables", "build_report"]
