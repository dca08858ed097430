"""The ablation as the UI and the CLI see it, on two weeks of real flights."""

from datetime import date

import dagster as dg
import pytest
from typer.testing import CliRunner

from ml_assets import cli
from ml_assets.core.ablation_records import load_ablation
from ml_assets.core.candidates import candidate_of
from ml_assets.core.ports import DayRange

AS_OF = date(2013, 1, 14)


@pytest.mark.slow
def test_the_command_trains_without_each_view_and_writes_a_page_that_leads_to_the_candidate(life, monkeypatch):
    monkeypatch.setattr(cli.ablation, "Lifecycle", lambda environment, on_event: life.lifecycle)
    monkeypatch.setattr(cli.terminal, "load_use_cases", lambda: (life.use_case,))
    done = CliRunner().invoke(cli.app, ["ablation", "--as-of", str(AS_OF), "--rows", "400", "--seeds", "2"])
    assert done.exit_code == 0, done.output
    store = life.lifecycle.store
    found = load_ablation(store, "arrival_delay", AS_OF)
    assert {gain.view for gain in found.views} == set(life.use_case.features)
    text = " ".join(done.output.split())
    for gain in found.views:
        assert f"{gain.gain:+.4f} ± {gain.margin:.4f}" in text
    assert f"each a mean of 2 trainings on {found.n_train:,} rows" in text

    facts = life.facts("arrival_delay/ablation")
    assert (facts["n_train"], facts["validation_loss"]) == (found.n_train, found.full_loss)
    assert facts["gains"].startswith("![gain of each feature view](data:image/png;base64,")
    page = store.get(f"reports/arrival_delay/ablation-{AS_OF}.html").decode()
    version = candidate_of(store, "arrival_delay", AS_OF)
    assert f'href="./candidate-{version}.html"' in page
    candidate = store.get(f"reports/arrival_delay/candidate-{version}.html").decode()
    assert f'href="./ablation-{AS_OF}.html"' in candidate
    # Each table's seconds were recorded when the days were landed: no view is without.
    rows = page[page.index("<tbody>") : page.index("</tbody>")].split("<tr>")[1:]
    assert len(rows) == len(found.views)
    assert all(0 <= float(row.rpartition('<td class="n">')[2].partition("</td>")[0]) < 60 for row in rows)


def test_a_run_that_asks_for_no_rows_trains_nothing(life):
    life.lifecycle._run([dg.AssetKey(["arrival_delay", "ablation"])], DayRange(first=AS_OF, last=AS_OF))
    assert not [event for event in life.events if event.is_step_materialization]


def test_the_form_of_the_job_is_filled_in(life):
    job = life.lifecycle._definitions.resolve_job_def("arrival_delay_ablation")
    filled_in = job.get_run_config_for_partition_key(str(AS_OF))
    assert filled_in["ops"]["arrival_delay__ablation"]["config"] == {"n_train_rows": 30_000, "n_seeds": 3}
    dg.validate_run_config(job, filled_in)
