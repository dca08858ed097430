from ml_assets.backends.object_store import ObjectArtifactStore
from ml_assets.core.experiment_rows import experiments


def test_the_trainings_and_decisions_of_the_graph_are_rows_with_the_run_that_made_them(as_built):
    rows = experiments(ObjectArtifactStore((as_built.path / "artifacts").as_uri()))
    trainings = [row for row in rows if row.kind == "training"]
    assert [(row.status, str(row.as_of)) for row in trainings] == [
        ("complete", "2013-01-14"),
        ("complete", "2013-01-12"),
    ]
    assert all(len(row.run_id) == 36 and row.seconds > 0 and row.metrics["roc_auc"] > 0.5 for row in trainings)
    assert trainings[0].parent_version == trainings[1].version
    assert [row.status for row in rows if row.kind == "promotion"] == ["promote", "promote"]
