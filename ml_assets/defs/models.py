"""Stage models: the candidate fitted on one training set, and the champion that may serve."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date

import dagster as dg
from pydantic import Field

from ml_assets.backends.environments import Environment
from ml_assets.calendar import DAILY, as_of_day, freshness_of_champion, now
from ml_assets.core import registry, training_sets
from ml_assets.core.candidates import TrainedCandidate, candidate_of
from ml_assets.core.coded_sets import RecordsFolder
from ml_assets.core.experiments import ExperimentLog
from ml_assets.core.feature_views import FeatureView
from ml_assets.core.insights import Insights, insights_on
from ml_assets.core.package import load_package
from ml_assets.core.ports import ArtifactStore, Tracker
from ml_assets.core.promoting import JudgedCandidate, Workshop, evidence_of, fit_and_judge, record_verdict, verdict_on
from ml_assets.core.promotion import GATES
from ml_assets.core.registry import LedgerEntry
from ml_assets.core.reports import candidate_report, chart_markdown, curve_spec, insight_charts
from ml_assets.core.scoring import score
from ml_assets.core.spec import UseCase
from ml_assets.core.tasks import AnyCurve, meaning_of
from ml_assets.core.trainers import name_of
from ml_assets.core.trainers.segments import SegmentOutcome
from ml_assets.core.trainers.starts import cost_facts
from ml_assets.core.training_sets import TrainingSet
from ml_assets.core.trainings import champion_before
from ml_assets.resources import feature_views_of, link_to
from ml_assets.use_cases import code_version_of, load_use_cases


class CandidateConfig(dg.Config):
    """What a person may set when launching a training from the UI."""

    is_warm_started: bool = Field(True, description="Train from the champion's weights too, and let validation choose.")


@dg.definitions
def defs() -> dg.Definitions:
    """A candidate and a champion per use case."""
    views = feature_views_of(Environment.current())
    use_cases = load_use_cases()
    return dg.Definitions(assets=[_candidate(u, views) for u in use_cases] + [_champion(u) for u in use_cases])


def _candidate(use_case: UseCase, declared: dict[str, FeatureView]) -> dg.AssetsDefinition:
    inputs = use_case.inputs(declared)
    key = use_case.key("candidate")

    @dg.asset(
        key=key,
        description="The model fitted on the training set of this as-of date, not yet allowed to serve.",
        group_name="models",
        deps=[use_case.key("training_set")],
        partitions_def=DAILY,
        owners=list(use_case.owners),
        kinds={name_of(use_case.trainer).lower(), "onnx", "wandb"},
        tags={"cadence": "on_training", "use_case": use_case.name},
        check_specs=[
            dg.AssetCheckSpec(name, asset=key, blocking=True, description=text)
            for name, text in GATES[use_case.task].items()
        ],
    )
    def _fit(
        context: dg.AssetExecutionContext,
        config: CandidateConfig,
        store: dg.ResourceParam[ArtifactStore],
        tracker: dg.ResourceParam[Tracker],
    ) -> dg.MaterializeResult:
        training_set = _training_set_of(store, use_case, as_of_day(context))

        def on_epoch(number: int, metrics: Mapping[str, float]) -> None:
            context.log.info(f"epoch {number}: " + ", ".join(f"{k} {v:.4f}" for k, v in metrics.items()))

        environment = Environment.current()
        judged = fit_and_judge(
            store,
            use_case,
            training_set,
            is_warm_started=config.is_warm_started,
            workshop=Workshop(
                inputs=inputs,
                tracker=tracker,
                code_version=code_version_of(use_case),
                work_folder=environment.trainings_folder,
                records=RecordsFolder(kept=environment.records_folder, work=environment.work_folder),
                now=now,
                experiments=ExperimentLog(store=store, now=now, recorded_by="dagster", run_id=context.run.run_id),
                on_epoch=on_epoch,
            ),
        )
        trained, verdict = judged.trained, judged.verdict
        labels, answers = training_set.test["label"].to_numpy(), score(trained.package, training_set.test)
        curve = meaning_of(use_case.task).curve(labels, answers)
        insights = insights_on(trained.package, training_set, seed=use_case.seed)
        path = f"reports/{use_case.name}/candidate-{trained.package.version}.html"
        # The page of its training stands: what it says of the champion was true then.
        if not (trained.is_reused and store.exists(path)):
            page = _page(judged, curve, insights, use_case)
            store.put(path, page.encode())
        return dg.MaterializeResult(
            data_version=dg.DataVersion(trained.package.package_hash),
            metadata={
                **_facts(trained, store),
                "report": link_to(store, path),
                "calibration": dg.MetadataValue.md(
                    chart_markdown(curve_spec(curve, unit=use_case.label.unit), name="predicted and happened")
                ),
                "importance": dg.MetadataValue.md(_importance_chart(insights, use_case)),
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name=gate.name,
                    passed=gate.is_passed,
                    description=gate.detail,
                    metadata={
                        k: v for k, v in {"found": gate.found, "expected": gate.expected}.items() if v is not None
                    },
                )
                for gate in verdict.gates
            ],
        )

    return _fit


def _champion(use_case: UseCase) -> dg.AssetsDefinition:
    @dg.asset(
        key=use_case.key("champion"),
        description="The version in charge from the as-of date on; changed only by an entry in the promotion ledger.",
        group_name="models",
        deps=[use_case.key("candidate"), use_case.key("training_set")],
        partitions_def=DAILY,
        freshness_policy=freshness_of_champion(use_case.retraining.maximum_age_days),
        owners=list(use_case.owners),
        kinds={"ledger"},
        tags={"cadence": "on_training", "use_case": use_case.name},
    )
    def _promote(
        context: dg.AssetExecutionContext,
        store: dg.ResourceParam[ArtifactStore],
        tracker: dg.ResourceParam[Tracker],
    ) -> dg.MaterializeResult:
        as_of = as_of_day(context)
        training_set = _training_set_of(store, use_case, as_of)
        package = load_package(store, use_case.name, candidate_of(store, use_case.name, as_of))
        entry = registry.decision_on(registry.entries(store, use_case.name), package.version, as_of)
        if entry is None:
            # A blocking check stops this asset only in the run that trained; here it holds in any later run too.
            evidence = evidence_of(package, champion_before(store, use_case.name, as_of), training_set, use_case)
            verdict = verdict_on(package, evidence, training_set, use_case)
            if not verdict.is_promotable:
                raise dg.Failure(f"{package.version} may not serve: " + "; ".join(verdict.reasons))
            entry = record_verdict(store, use_case, package, verdict, tracker=tracker, recorded_at=now())
        if entry.action == "wait":
            raise dg.Failure(_how_to_approve(entry), metadata={"waits_for_approval": entry.version})
        if entry.action != "promote":
            verb = "refused" if entry.action == "refuse" else f"rejected by {entry.recorded_by}"
            raise dg.Failure(f"{package.version} was {verb} on {entry.recorded_at:%Y-%m-%d}: {entry.reason}")
        if entry.package_hash != package.package_hash:
            raise dg.Failure(
                f"{package.version} was promoted with the package {entry.package_hash[:12]}, and the store holds "
                f"{package.package_hash[:12]}; restore it from a backup, or train as of another day"
            )
        return dg.MaterializeResult(
            data_version=dg.DataVersion(entry.package_hash),
            metadata=dict(entry.facts),
        )

    return _promote


def _how_to_approve(entry: LedgerEntry) -> str:
    command = f"ml-assets approve --use-case {entry.use_case} --version {entry.version} --by NAME --reason WHY"
    return (
        f"{entry.version} passed every gate and waits for a person (package {entry.package_hash[:12]}, ledger entry "
        f"{entry.sequence}); read its report, then `{command}` and materialize {entry.use_case}/champion for "
        f"{entry.as_of} again, or `ml-assets reject` it alike"
    )


def _training_set_of(store: ArtifactStore, use_case: UseCase, as_of: date) -> TrainingSet:
    fingerprint = training_sets.training_set_of(store, use_case.name, as_of)
    return training_sets.load_training_set(store, use_case.name, fingerprint)


def _page(judged: JudgedCandidate, curve: AnyCurve, insights: Insights, use_case: UseCase) -> str:
    """Return the candidate's report as HTML."""
    trained, champion, training_set = judged.trained, judged.champion, judged.training_set
    package, days = trained.package, training_set.days
    return candidate_report(
        use_case=use_case.name,
        version=package.version,
        as_of=package.as_of,
        evidence=judged.evidence,
        champion=champion.version if champion else "",
        confidence=use_case.promotion.confidence,
        verdict=judged.verdict,
        calibration=curve,
        epochs=[(epoch.number, epoch.train_loss, epoch.validation_loss) for epoch in trained.history],
        facts={
            **{part: f"{n:,} examples" for part, n in training_set.counts.items()},
            "train days": f"{days.train[0]} to {days.train[-1]}",
            "test days": f"{days.test[0]} to {days.test[-1]}",
            "training set": training_set.fingerprint[:12],
        },
        links={"what each feature view adds (once `ml-assets ablation` has run)": f"./ablation-{package.as_of}.html"},
        question=use_case.question,
        intervals={name: (found.low, found.high) for name, found in package.metrics.intervals.items()},
        warm_start=package.metrics.warm_start,
        segments=package.metrics.segments,
        segments_by=use_case.segments.by if use_case.segments else "",
        insights=insights,
        holdout_days=days.test,
    )


def _importance_chart(insights: Insights, use_case: UseCase) -> str:
    spec = insight_charts.importance(insights.importances.views, confidence=use_case.promotion.confidence)
    return chart_markdown(spec, name="importance of each feature view")


def _facts(trained: TrainedCandidate, store: ArtifactStore) -> dict[str, object]:
    package = trained.package
    meaning = meaning_of(package.signature.output.task)
    simple = meaning.figures(package.metrics.baselines[meaning.simple_baseline])
    measured = dict(meaning.figures(package.metrics.holdout))
    measured |= {f"{meaning.simple_baseline}_{name}": simple[name] for name in (m.name for m in meaning.sliced)}
    return {
        **{name: value for name, value in measured.items() if value is not None},
        **{f"{name}_low": interval.low for name, interval in package.metrics.intervals.items()},
        **{f"{name}_high": interval.high for name, interval in package.metrics.intervals.items()},
        "version": package.version,
        "is_reused": trained.is_reused,
        "is_warm_started": package.manifest.is_warm_started,
        **(package.metrics.warm_start.facts if package.metrics.warm_start else {}),
        **cost_facts(trained.costs),
        "seconds": trained.seconds,
        "n_epochs": package.metrics.n_epochs,
        "largest_parity_difference": package.metrics.largest_parity_difference,
        **segment_facts(package.metrics.segments),
        "dagster/uri": store.address(f"models/{package.use_case}/{package.version}/manifest.json"),
    }


def segment_facts(segments: Sequence[SegmentOutcome]) -> dict[str, object]:
    """Return how many segments have a model of their own, and a table that says of each which model answers and why."""
    if not segments:
        return {}
    columns = [dg.TableColumn(name) for name in asdict(segments[0])]
    # A table of Dagster has no empty number.
    records = [dg.TableRecord({n: "" if v is None else v for n, v in asdict(segment).items()}) for segment in segments]
    return {
        "n_segments": len(segments),
        "n_segments_with_own_model": sum(segment.has_own_model for segment in segments),
        "segments": dg.MetadataValue.table(records, schema=dg.TableSchema(columns)),
    }
