"""What people look at: self-contained HTML reports of monitoring, of candidates and of feature views, and charts."""

from ml_assets.core.reports.ablation import ablation_report
from ml_assets.core.reports.candidate import candidate_report
from ml_assets.core.reports.charts import chart_markdown, chart_svg
from ml_assets.core.reports.curves import curve_spec
from ml_assets.core.reports.ml_test_score import ml_test_score_report, score_markdown
from ml_assets.core.reports.monitoring import monitoring_report
from ml_assets.core.reports.overview import overview_page, overview_pictures
from ml_assets.core.reports.replay import replay_report
from ml_assets.core.reports.write import write_index, write_report

__all__ = [
    "ablation_report",
    "candidate_report",
    "chart_markdown",
    "chart_svg",
    "curve_spec",
    "ml_test_score_report",
    "monitoring_report",
    "overview_page",
    "overview_pictures",
    "replay_report",
    "score_markdown",
    "write_index",
    "write_report",
]
