import base64
import hashlib
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from ml_assets.core.comparison import Comparison, Line
from ml_assets.core.evaluation import CalibrationBin
from ml_assets.core.experiment_rows import Experiment
from ml_assets.core.intervals import Interval
from ml_assets.core.paired_bootstrap import Estimate
from ml_assets.core.reports.board import experiment_board
from ml_assets.core.reports.comparison import comparison_page

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SCRIPT = '<script>alert(1)</script><img src=x onerror="alert(2)">'


def training(number: int, **changes: object) -> Experiment:
    row = Experiment(
        id=f"t{number}",
        kind="training",
        status="complete",
        use_case="storm_delay",
        as_of=date(2013, 7, 1) + timedelta(weeks=number),
        started_at=NOON + timedelta(hours=number),
        seconds=12.5,
        trainer="lightning",
        parameters={"layer_sizes": "64,32"},
        version=f"2013-07-0{number}-abc",
        metrics={"roc_auc": 0.7 + number / 100, "log_loss": 0.5},
        intervals={"roc_auc": Interval(low=0.68, high=0.75)},
    )
    return replace(row, **changes)


ROWS = [
    Experiment(
        id="storm_delay.1",
        kind="promotion",
        status="promote",
        use_case="storm_delay",
        version="2013-07-02-abc",
        started_at=NOON + timedelta(days=1),
        reason="passed all gates",
    ),
    training(3, status="failed", metrics={}, intervals={}, reason=f"TrainingFailed: {SCRIPT}"),
    training(2),
    training(1),
    *(
        Experiment(
            id=f"abc123.{number}",
            kind="trial",
            status=status,
            use_case="storm_delay",
            as_of=date(2013, 7, 1),
            recorded_by="study",
            metrics={"validation_loss": 0.5 - number / 100, "n_epochs": 3.0},
        )
        for number, status in enumerate(("complete", "complete", "pruned"))
    ),
]


def test_the_board_shows_every_experiment_the_failed_ones_with_reasons_and_the_curves():
    page = experiment_board(ROWS, written_at=NOON)
    assert page.count("<tr><td") == 1 + len(ROWS)  # the failed one stands in a table of its own too
    assert page.count("<figure") == 2
    assert "2 models, 1 of them promoted; 3 trials." in page
    assert "TrainingFailed" in page
    assert "0.7200" in page
    assert "64,32" in page
    assert page == experiment_board(ROWS, written_at=NOON)


def test_foreign_text_stays_inert_and_only_the_script_of_the_page_may_run():
    page = experiment_board(ROWS, written_at=NOON)
    assert "&lt;script&gt;alert(1)" in page
    assert "onerror=&#34;" in page
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in page
    assert "default-src &#39;none&#39;" in page
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)


def test_a_doctored_use_case_cannot_leave_the_ids_of_its_charts():
    page = experiment_board([training(1, use_case='x"><script>alert(3)</script>')], written_at=NOON)
    assert page.count("<script>") == 1


def test_a_board_of_nothing_is_a_page():
    page = experiment_board([], written_at=NOON)
    assert "Nothing failed." in page
    assert "none yet" in page


def test_figures_of_another_task_are_shown_alike():
    rows = [training(1, metrics={"mae": 5.25, "rmse": 8.5}, intervals={})]
    page = experiment_board(rows, written_at=NOON)
    assert "5.2500" in page
    assert '<th class="n">mae</th>' in page
    assert page.count("<figure") == 1


def test_the_page_of_a_comparison_shows_its_lines_curves_and_what_the_difference_is_worth():
    bins = [CalibrationBin(mean_prediction=p, positive_share=p, n_rows=10) for p in (0.1, 0.6)]
    comparison = Comparison(
        one=training(1),
        other=training(2),
        sections={"parameters": [Line(name=SCRIPT, one="8", other="12", is_different=True)]},
        note="Both judged on the same 600 rows.",
        gains={"roc_auc": Estimate(value=0.01, standard_error=0.002, n_days=20)},
        epochs={"t1": [(1, 0.6, 0.55), (2, 0.5, 0.52)]},
        calibration={"t1": bins, "t2": bins},
    )
    page = comparison_page(comparison)
    assert page.count("<figure") == 3
    # t(19) at 97.5 % is 2.0930, times 0.002.
    assert "On the same rows: the second is 0.0100 more, the noise 0.0042, so it is more than chance." in page
    assert '<td class="differs">12</td>' in page
    assert "<script>" not in page
    assert "script-src" not in page
