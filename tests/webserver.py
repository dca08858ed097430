"""What Dagster's own webserver answers about code locations, their runs and their logs: what the UI is made of."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import CompositeTarget, WorkspaceLoadTarget
from dagster_graphql.client.query import ERROR_FRAGMENT, MESSAGE_EVENT_FRAGMENTS, METADATA_ENTRY_FRAGMENT
from dagster_webserver.app import create_app_from_workspace_process_context

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Using .httpx. with")  # Starlette would rather have httpx2
    from starlette.testclient import TestClient

_OF_A_CONFIG_TYPE = """
    key description
    ... on CompositeConfigType { fields { name description isSecret defaultValueAsJson } }
    ... on EnumConfigType { values { value description } }
"""
# Of each code location: its resources, jobs and their presets, assets with the form of each, sensors, schedules.
_REPOSITORIES = (
    ERROR_FRAGMENT
    + METADATA_ENTRY_FRAGMENT
    + """
{ repositoriesOrError { __typename
  ... on PythonError { ...errorFragment }
  ... on RepositoryConnection { nodes {
    name location { name } displayMetadata { key value }
    allTopLevelResourceDetails {
      name description resourceType
      configFields { name description isSecret defaultValueAsJson }
      configuredValues { key value type }
    }
    jobs {
      name description tags { key value } runTags { key value } metadataEntries { ...metadataEntryFragment }
      presets { name runConfigYaml tags { key value } }
      modes { name resources { name description configField { name description defaultValueAsJson } } }
    }
    assetNodes {
      assetKey { path } description kinds opTags { key value } tags { key value }
      metadataEntries { ...metadataEntryFragment }
      configField { name description defaultValueAsJson configType { OF_A_CONFIG_TYPE } }
      assetMaterializations { runId partition label description metadataEntries { ...metadataEntryFragment } }
    }
    sensors { name description tags { key value } metadataEntries { ...metadataEntryFragment } }
    schedules { name description tags { key value } metadataEntries { ...metadataEntryFragment } }
  } }
} }
""".replace("OF_A_CONFIG_TYPE", _OF_A_CONFIG_TYPE)
)
_VARIABLES = """
query ($of: RepositorySelector!) { utilizedEnvVarsOrError(repositorySelector: $of) { __typename
  ... on EnvVarWithConsumersList { results { envVarName envVarConsumers { type name } } }
} }
"""
# The form that runs a job, as the launchpad opens it.
_LAUNCHPAD = """
query ($of: PipelineSelector!) { runConfigSchemaOrError(selector: $of) { __typename
  ... on RunConfigSchema { rootDefaultYaml allConfigTypes { OF_A_CONFIG_TYPE } }
} }
""".replace("OF_A_CONFIG_TYPE", _OF_A_CONFIG_TYPE)
_RUNS = """
{ runsOrError { __typename
  ... on Runs { results { runId jobName status runConfigYaml tags { key value } } }
} }
"""
_LOGS = (
    MESSAGE_EVENT_FRAGMENTS
    + """
query ($run: ID!, $after: String) { logsForRun(runId: $run, afterCursor: $after) { __typename
  ... on EventConnection { cursor hasMore events { ...messageEventFragment
    ... on MaterializationEvent { metadataEntries { ...metadataEntryFragment } }
    ... on AssetCheckEvaluationEvent {
      evaluation { checkName description metadataEntries { ...metadataEntryFragment } }
    }
    ... on LogsCapturedEvent { logKey fileKey externalUrl externalStdoutUrl externalStderrUrl }
  } }
} }
"""
)
_PRINTED = "query ($key: [String!]!) { capturedLogs(logKey: $key) { stdout stderr } }"
_INSTANCE = """
{ instance { id info executablePath runLauncher { name } daemonHealth { allDaemonStatuses { daemonType } } } }
"""


def answers(instance: dg.DagsterInstance, locations: Sequence[WorkspaceLoadTarget]) -> dict[str, bytes]:
    """Return all that the webserver says, by what it was asked; each code location is in a process of its own."""
    with (
        WorkspaceProcessContext(instance, CompositeTarget(list(locations))) as workspace,
        TestClient(create_app_from_workspace_process_context(workspace)) as client,
    ):
        return {place: json.dumps(found).encode() for place, found in _asked(client)} | {
            path: client.get(path).raise_for_status().content for path in ("/server_info", "/runs")
        }


def _asked(client: TestClient) -> Iterator[tuple[str, object]]:
    yield "instance", _ask(client, _INSTANCE, "instance")
    for repository in _ask(client, _REPOSITORIES, "repositoriesOrError", is_a="RepositoryConnection")["nodes"]:
        location = repository["location"]["name"]
        of = {"repositoryName": repository["name"], "repositoryLocationName": location}
        for part, found in repository.items():
            yield f"{location}: {part}", found
        listed = _ask(client, _VARIABLES, "utilizedEnvVarsOrError", is_a="EnvVarWithConsumersList", of=of)
        yield f"{location}: variables", listed
        for job in repository["jobs"]:
            selected = {**of, "pipelineName": job["name"]}
            form = _ask(client, _LAUNCHPAD, "runConfigSchemaOrError", is_a="RunConfigSchema", of=selected)
            yield f"{location}: launchpad of {job['name']}", form
    for run in _ask(client, _RUNS, "runsOrError", is_a="Runs")["results"]:
        yield f"run {run['runId']}", run
        events = list(_events(client, run["runId"]))
        yield f"logs of run {run['runId']}", events
        for key in {event["fileKey"] for event in events if event.get("fileKey")}:
            printed = _ask(client, _PRINTED, "capturedLogs", key=[run["runId"], "compute_logs", key])
            yield f"printed by run {run['runId']}: {key}", printed


def _events(client: TestClient, run_id: str) -> Iterator[dict[str, Any]]:
    after, has_more = None, True
    while has_more:
        page = _ask(client, _LOGS, "logsForRun", is_a="EventConnection", run=run_id, after=after)
        yield from page["events"]
        after, has_more = page["cursor"], page["hasMore"]


def _ask(client: TestClient, query: str, name: str, *, is_a: str | None = None, **variables: object) -> Any:
    """Return one field of the answer, of this type; fail with all that came where it is an error."""
    answer: Mapping[str, Any] = client.post("/graphql", json={"query": query, "variables": variables}).json()
    assert not answer.get("errors"), answer["errors"]
    found = answer["data"][name]
    assert is_a is None or found["__typename"] == is_a, found
    return found
