"""What people look at: self-contained HTML reports of monitoring and of candidates, and charts as SVG and PNG."""

from ml_assets.core.reports.candidate import candidate_report
from ml_assets.core.reports.charts import chart_markdown, chart_svg
from ml_assets.core.reports.curves import curve_spec
from ml_assets.core.reports.monitoring import monitoring_report

__all__ = ["candidate_report", "chart_markdown", "chart_svg", "curve_spec", "monitoring_report"]
