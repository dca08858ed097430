"""A test server for BigQuery's REST API: real HTTP on 127.0.0.1, DuckDB in memory behind it.

It carries google-cloud-bigquery, dagster-gcp's BigQueryResource and dbt-bigquery. The clients find it by
``BIGQUERY_EMULATOR_HOST``; in a dbt profile: ``method: oauth-secrets``, ``token: fake``, ``api_endpoint``.

Not here: the Storage API, UDFs, ML, IAM, external tables, copying single partitions, legacy SQL.
"""

import json
import re
import socket
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa

from tests.servers.bigquery_engine import Engine, Outcome, Run, Session, milliseconds
from tests.servers.bigquery_sql import ApiError, Field, invalid, normalized, parameter_sql, quoted
from tests.servers.bigquery_statements import run_script

_STATUS_OF = {"notFound": 404, "duplicate": 409, "accessDenied": 403, "backendError": 503, "rateLimitExceeded": 403}
_STATUS_OF |= {"quotaExceeded": 403, "authError": 401, "internalError": 500}
_GRPC_NAME = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}
_GRPC_NAME |= {409: "ALREADY_EXISTS", 500: "INTERNAL", 503: "UNAVAILABLE"}


@dataclass(kw_only=True)
class Request:
    """A request as a test may look at it; ``status`` is what was answered."""

    method: str
    path: str
    parameters: Mapping[str, str]
    body: Any = None
    token: str | None = None
    status: int = 0

    @property
    def query(self) -> str | None:
        """The SQL of the job it starts, if it is one of a query."""
        return self._of_job("query", "query")

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of the job it starts."""
        body = self.body if isinstance(self.body, dict) else {}
        return (body.get("configuration") or body).get("labels") or {}

    @property
    def job_id(self) -> str | None:
        """The id the client gave to the job it starts."""
        body = self.body if isinstance(self.body, dict) else {}
        return (body.get("jobReference") or {}).get("jobId")

    def _of_job(self, kind: str, key: str) -> Any:
        body = self.body if isinstance(self.body, dict) else {}
        return ((body.get("configuration") or {}).get(kind) or body).get(key)


@dataclass(kw_only=True)
class _Fault:
    n: int
    error: ApiError
    path: str
    after: bool
    in_job: bool


@dataclass(kw_only=True)
class _Upload:
    job: dict[str, Any]
    content: bytearray = field(default_factory=bytearray)
    done: Any = None


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """An answer with rows: JSON texts that go into the body as they are."""

    meta: dict[str, Any]
    rows: list[str]


class BigQueryServer:
    """BigQuery for one project; a context manager that serves at ``address`` until it ends.

    ``location`` is where datasets are made if the client names no other, ``page_rows`` the most rows in one answer.
    """

    def __init__(self, project: str, location: str = "US", *, page_rows: int = 50_000) -> None:
        self.project, self.location, self.page_rows = project, location, page_rows
        self.engine = Engine(project, location)
        self.requests: list[Request] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self._results: dict[str, tuple[list[Field], pa.Table]] = {}
        self._sessions: dict[str, Session] = {}
        self._uploads: dict[str, _Upload] = {}
        self._inserted: set[tuple[str, str, str]] = set()
        self._jobs_of_requests: dict[str, str] = {}
        self._faults: list[_Fault] = []
        self._tokens_seen: set[str | None] = {None}
        self._tokens_expired: set[str | None] = set()
        self._may_refresh = True
        self._http = _Http(("127.0.0.1", 0), self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def address(self) -> str:
        """The URL to give to clients."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> "BigQueryServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.close_connections()
        self._http.server_close()
        self._thread.join()
        self.engine.close()

    # --- for tests

    def fail_next(
        self,
        n: int = 1,
        *,
        status: int = 503,
        reason: str = "backendError",
        message: str = "injected by the test",
        path: str = "",
        after: bool = False,
        in_job: bool = False,
    ) -> None:
        """Answer the next ``n`` requests whose method and path (``POST /projects/p/jobs``) match with an error.

        ``after`` does first what was asked and loses only the answer; ``in_job`` lets the job be made, and fail.
        """
        self._faults.append(_Fault(n=n, error=ApiError(status, reason, message), path=path, after=after, in_job=in_job))

    def expired_token(self, *, may_refresh: bool = True) -> None:
        """Refuse every token used so far; a service account gets a new one, unless ``may_refresh`` is false."""
        self._tokens_expired |= self._tokens_seen
        self._may_refresh = may_refresh

    def service_account(self, private_key: str) -> dict[str, str]:
        """Return the content of a service account's key file whose tokens this server gives out."""
        email = f"tests@{self.project}.iam.gserviceaccount.com"
        made = {"type": "service_account", "project_id": self.project, "client_email": email}
        return {**made, "private_key": private_key, "private_key_id": "0", "token_uri": f"{self.address}/token"}

    def queries(self) -> list[str]:
        """Return the SQL of every query that was asked for, in order."""
        return [request.query for request in self.requests if request.query is not None]

    # --- answering

    def answer(self, request: Request, headers: Mapping[str, str], content: bytes) -> tuple[int, Any, dict[str, str]]:
        """Return status, body and headers of the answer to a request."""
        self.requests.append(request)
        try:
            if request.path == "/token":
                return self._token()
            if request.token in self._tokens_expired:
                raise ApiError(401, "authError", "Request had invalid authentication credentials.")
            self._tokens_seen.add(request.token)
            fault = self._fault(request)
            if fault and not fault.after:
                raise fault.error
            found = self._route(request, headers, content)
            if fault:
                raise fault.error
            return found
        except ApiError as error:
            return error.status, _error_body(error), {}

    def _token(self) -> tuple[int, Any, dict[str, str]]:
        if not self._may_refresh:
            return 400, {"error": "invalid_grant", "error_description": "the key was revoked"}, {}
        token = {"access_token": f"token-{uuid.uuid4().hex}", "expires_in": 3600, "token_type": "Bearer"}
        return 200, token, {}

    def _fault(self, request: Request | None, *, in_job: bool = False) -> _Fault | None:
        for fault in self._faults:
            named = f"{request.method} {request.path}" if request else ""
            if fault.n > 0 and fault.in_job == in_job and (in_job or re.search(fault.path, named)):
                fault.n -= 1
                return fault
        return None

    def _route(self, request: Request, headers: Mapping[str, str], content: bytes) -> tuple[int, Any, dict[str, str]]:
        for method, pattern, action in _ROUTES:
            found = re.fullmatch(pattern, request.path)
            if found and method == request.method:
                names = {key: unquote(value) for key, value in found.groupdict().items()}
                if names.pop("project", self.project) != self.project:
                    raise ApiError(403, "accessDenied", f"Access Denied: this server knows project {self.project} only")
                if action in (BigQueryServer._upload, BigQueryServer._upload_part):
                    return action(self, request, headers, content)
                return 200, action(self, request, **names), {}
        raise ApiError(404, "notFound", f"this test server has no {request.method} {request.path}")

    # --- datasets

    def _list_datasets(self, request: Request) -> Any:
        with self.engine.lock:
            found = sorted(self.engine.datasets.items())
        return _page([of for _, of in found], request, key="datasets")

    def _insert_dataset(self, request: Request) -> Any:
        body = dict(request.body)
        name = body.pop("datasetReference")["datasetId"]
        with self.engine.lock:
            return self.engine.create_dataset(name, body.pop("location", None), **body)

    def _get_dataset(self, request: Request, dataset: str) -> Any:
        with self.engine.lock:
            return self.engine.dataset(dataset)

    def _patch_dataset(self, request: Request, dataset: str) -> Any:
        with self.engine.lock:
            found = self.engine.dataset(dataset)
            if request.body.get("location", found["location"]) != found["location"]:
                raise ApiError(400, "invalid", "Dataset's location is immutable")
            found |= {key: value for key, value in request.body.items() if key != "datasetReference"}
            return found

    def _delete_dataset(self, request: Request, dataset: str) -> Any:
        with self.engine.lock:
            self.engine.drop_dataset(dataset, with_contents=request.parameters.get("deleteContents") == "true")

    # --- tables

    def _list_tables(self, request: Request, dataset: str) -> Any:
        with self.engine.lock:
            self.engine.dataset(dataset)
            found = [of for name, of in sorted(self.engine.tables.items()) if name[0] == dataset]
        wanted = ("kind", "id", "tableReference", "type", "timePartitioning", "clustering", "labels", "creationTime")
        listed = [{key: of[key] for key in wanted if key in of} for of in found]
        return _page(listed, request, key="tables") | {"totalItems": len(listed)}

    def _insert_table(self, request: Request, dataset: str) -> Any:
        body = dict(request.body)
        table = (dataset, body.pop("tableReference")["tableId"])
        fields = [normalized(of) for of in (body.pop("schema", None) or {}).get("fields", ())]
        view = body.pop("view", None)
        with self.engine.lock:
            if table in self.engine.tables:
                text = f"Already Exists: Table {self.project}:{dataset}.{table[1]}"
                raise ApiError(409, "duplicate", text)
            self.engine.dataset(dataset)
            if view:
                self.engine.create_view(self.engine.database, table, view["query"], **body)
            else:
                self.engine.create_table(self.engine.database, table, fields, **body)
            return self.engine.described(table)

    def _get_table(self, request: Request, dataset: str, table: str) -> Any:
        if dataset == _ANONYMOUS:
            fields, rows = self._rows_of_job(table)
            reference = {"projectId": self.project, "datasetId": dataset, "tableId": table}
            size = {"numRows": str(rows.num_rows), "numBytes": str(rows.nbytes), "type": "TABLE"}
            return {"tableReference": reference, "schema": {"fields": fields}, **size}
        with self.engine.lock:
            return self.engine.described((dataset, table.partition("$")[0]))

    def _patch_table(self, request: Request, dataset: str, table: str) -> Any:
        with self.engine.lock:
            self.engine.change_table((dataset, table), request.body)
            return self.engine.described((dataset, table))

    def _delete_table(self, request: Request, dataset: str, table: str) -> Any:
        name, _, partition = table.partition("$")
        with self.engine.lock:
            if partition:
                self.engine.delete_partition((dataset, name), partition)
            else:
                self.engine.drop_table(self.engine.database, (dataset, name))

    def _list_rows(self, request: Request, dataset: str, table: str) -> Any:
        if dataset == _ANONYMOUS:
            fields, rows = self._rows_of_job(table)
        else:
            with self.engine.lock:
                fields, rows = self.engine.table_rows((dataset, table))
        if wanted := request.parameters.get("selectedFields"):
            names = wanted.split(",")
            fields, rows = (
                [of for of in fields if of["name"] in names],
                rows.select([of["name"] for of in fields if of["name"] in names]),
            )
        return self._sent({"kind": "bigquery#tableDataList"}, fields, rows, request)

    def _insert_all(self, request: Request, dataset: str, table: str) -> Any:
        with self.engine.lock:
            known = {of["name"] for of in self.engine.table((dataset, table))["schema"]["fields"]}
            wrong = {
                number: sorted(set(row["json"]) - known)[0]
                for number, row in enumerate(request.body["rows"])
                if set(row["json"]) - known and not request.body.get("ignoreUnknownValues")
            }
            if wrong and not request.body.get("skipInvalidRows"):
                stopped = {"reason": "stopped", "location": "", "debugInfo": "", "message": ""}
                errors = dict.fromkeys(range(len(request.body["rows"])), stopped)
            else:
                errors = {}
                rows = [row for number, row in enumerate(request.body["rows"]) if number not in wrong]
                new = [row for row in rows if (dataset, table, row.get("insertId")) not in self._inserted]
                self.engine.insert_all((dataset, table), new)
                self._inserted |= {(dataset, table, row["insertId"]) for row in new if row.get("insertId")}
            for number, name in wrong.items():
                message = f"no such field: {name}."
                errors[number] = {"reason": "invalid", "location": name, "debugInfo": "", "message": message}
        listed = [{"index": number, "errors": [error]} for number, error in sorted(errors.items())]
        return {"kind": "bigquery#tableDataInsertAllResponse", **({"insertErrors": listed} if listed else {})}

    # --- jobs

    def _list_jobs(self, request: Request) -> Any:
        with self.engine.lock:
            found = list(reversed(self.jobs.values()))
        shown = [job | {"state": job["status"]["state"]} for job in found]
        return _page(shown, request, key="jobs")

    def _get_job(self, request: Request, job: str) -> Any:
        found, location = self.jobs.get(job), request.parameters.get("location")
        if found is None or (location and location.upper() != found["jobReference"]["location"].upper()):
            raise ApiError(404, "notFound", f"Not found: Job {self.project}:{location or self.location}.{job}")
        return found

    def _cancel_job(self, request: Request, job: str) -> Any:
        return {"kind": "bigquery#jobCancelResponse", "job": self._get_job(request, job)}

    def _delete_job(self, request: Request, job: str) -> Any:
        self._get_job(request, job)
        del self.jobs[job]

    def _insert_job(self, request: Request) -> Any:
        return self._start(request.body)

    def _start(self, body: dict[str, Any], content: bytes | None = None) -> dict[str, Any]:
        """Run a job to its end; return its resource, in which an error may stand."""
        reference = {"projectId": self.project, "jobId": uuid.uuid4().hex, **(body.get("jobReference") or {})}
        configuration = body["configuration"]
        is_dry = bool(configuration.get("dryRun"))
        job: dict[str, Any] = {"kind": "bigquery#job", "etag": uuid.uuid4().hex, "jobReference": reference}
        job |= {"configuration": configuration, "status": {"state": "DONE"}, "user_email": "tests@example.com"}
        job["statistics"] = {"creationTime": milliseconds(), "startTime": milliseconds()}
        with self.engine.lock:
            if reference["jobId"] in self.jobs:
                where = f"{self.project}:{reference.get('location') or self.location}.{reference['jobId']}"
                raise ApiError(409, "duplicate", f"Already Exists: Job {where}")
            if not is_dry:
                self.jobs[reference["jobId"]] = job
            try:
                if fault := self._fault(None, in_job=True):
                    raise fault.error
                self._run(job, content)
            except ApiError as error:
                if is_dry:
                    raise
                job["status"] |= {"errorResult": error.entry(), "errors": [error.entry()]}
                job["_error"] = error.status
            except BaseException:
                self.jobs.pop(reference["jobId"], None)
                raise
            reference.setdefault("location", self.location)
            job["statistics"]["endTime"] = milliseconds()
            if is_dry:
                del reference["jobId"]
            job["id"] = f"{self.project}:{reference['location']}.{reference.get('jobId', '')}"
        return job

    def _run(self, job: dict[str, Any], content: bytes | None) -> None:
        configuration = job["configuration"]
        if "query" in configuration:
            configuration["jobType"] = "QUERY"
            self._run_query(job, configuration["query"])
        elif "load" in configuration:
            configuration["jobType"] = "LOAD"
            if content is None:
                raise ApiError(400, "invalid", "this test server loads uploaded files only")
            n_rows = self.engine.load(content, job)
            target = configuration["load"]["destinationTable"]
            job["jobReference"].setdefault("location", self.engine.datasets[target["datasetId"]]["location"])
            job["statistics"]["load"] = {"outputRows": str(n_rows), "inputFileBytes": str(len(content))}
            job["statistics"]["load"] |= {"inputFiles": "1", "outputBytes": str(len(content)), "badRecords": "0"}
        elif "copy" in configuration:
            configuration["jobType"] = "COPY"
            self.engine.copy(configuration["copy"])
        else:
            raise ApiError(400, "invalid", f"this test server runs no job of {sorted(configuration)}")

    def _run_query(self, job: dict[str, Any], query: dict[str, Any]) -> None:
        if query.get("useLegacySql", True):
            raise invalid("this test server reads no legacy SQL; set useLegacySql to false")
        session, session_id, is_kept = self._session(query)
        limit = query.get("maximumBytesBilled")
        run = Run(
            session=session,
            location=job["jobReference"].get("location"),
            default_dataset=(query.get("defaultDataset") or {}).get("datasetId"),
            is_dry=bool(job["configuration"].get("dryRun")),
            maximum_bytes=int(limit) if limit is not None else None,
        )
        try:
            _bind(session, query)
            outcome = run_script(self.engine, run, query["query"], keep_transaction=is_kept)
            target = query.get("destinationTable")
            if target and not run.is_dry and outcome.rows is not None and outcome.fields is not None:
                table, name = (target["datasetId"], target["tableId"]), "rows_of_query"
                session.cursor.register(name, outcome.rows)
                how = {"writeDisposition": "WRITE_EMPTY", **query}
                self.engine.write(session.cursor, table, f"SELECT * FROM {name}", outcome.fields, **how)
        finally:
            job["jobReference"].setdefault("location", run.location or self.location)
            _unbind(session)
            if not is_kept:
                session.cursor.close()
        self._note(job, query, run, outcome)
        if session_id:
            job["statistics"]["sessionInfo"] = {"sessionId": session_id}

    def _session(self, query: Mapping[str, Any]) -> tuple[Session, str | None, bool]:
        properties = {p["key"]: p["value"] for p in query.get("connectionProperties") or ()}
        session_id = properties.get("session_id")
        if query.get("createSession"):
            session_id = uuid.uuid4().hex
            self._sessions[session_id] = self.engine.new_session()
        elif session_id and session_id not in self._sessions:
            raise ApiError(404, "notFound", f"Not found: Session {session_id}")
        if session_id:
            return self._sessions[session_id], session_id, True
        return self.engine.new_session(), None, False

    def _note(self, job: dict[str, Any], query: dict[str, Any], run: Run, outcome: Outcome) -> None:
        """Put into a job's resource what came of it."""
        billed = 0 if run.is_dry else run.n_billed
        statistics: dict[str, Any] = {
            "statementType": outcome.kind,
            "totalBytesProcessed": str(run.n_bytes),
            "totalBytesBilled": str(billed),
            "totalSlotMs": str(max(1, run.n_bytes // 2**20)),
            "cacheHit": False,
            "referencedTables": [self._reference(table) for table in sorted(run.read)],
        }
        if outcome.n_affected is not None:
            statistics["numDmlAffectedRows"] = str(outcome.n_affected)
            statistics["dmlStats"] = {key: str(value) for key, value in outcome.counts.items()}
        if outcome.operation:
            statistics["ddlOperationPerformed"] = outcome.operation
            if outcome.target:
                statistics["ddlTargetTable"] = self._reference(outcome.target)
        if run.is_dry and outcome.fields is not None:
            statistics["schema"] = {"fields": outcome.fields}
        job["statistics"] |= {"query": statistics, "totalBytesProcessed": statistics["totalBytesProcessed"]}
        job["statistics"]["totalSlotMs"] = statistics["totalSlotMs"]
        if outcome.kind == "SCRIPT":
            job["statistics"]["numChildJobs"] = str(run.n_children)
        if outcome.target and outcome.kind == "CREATE_TABLE_AS_SELECT":
            query["destinationTable"] = self._reference(outcome.target)
        if outcome.rows is not None and outcome.fields is not None:
            identity = job["jobReference"]["jobId"]
            self._results[identity] = (outcome.fields, outcome.rows)
            anonymous = {"projectId": self.project, "datasetId": _ANONYMOUS, "tableId": identity}
            query.setdefault("destinationTable", anonymous)

    def _reference(self, table: tuple[str, str]) -> dict[str, str]:
        return {"projectId": self.project, "datasetId": table[0], "tableId": table[1]}

    # --- results

    def _query(self, request: Request) -> Any:
        """Run a query and answer with its first rows (jobs.query); a request sent again is answered again."""
        body = dict(request.body)
        outer = {key: body.pop(key) for key in ("labels", "dryRun", "jobTimeoutMs") if key in body}
        known = self._jobs_of_requests.get(body.get("requestId", ""))
        if known:
            return self._results_page(request, self.jobs[known])
        reference = {"location": body["location"]} if body.get("location") else {}
        job = self._start({"configuration": {**outer, "query": body}, "jobReference": reference})
        if outer.get("dryRun"):
            statistics = job["statistics"]["query"]
            return {
                "kind": "bigquery#queryResponse",
                "jobReference": job["jobReference"],
                "jobComplete": True,
                "totalBytesProcessed": statistics["totalBytesProcessed"],
                **({"schema": statistics["schema"], "totalRows": "0"} if "schema" in statistics else {}),
            }
        if "_error" not in job and body.get("requestId"):
            self._jobs_of_requests[body["requestId"]] = job["jobReference"]["jobId"]
        return self._results_page(request, job)

    def _query_results(self, request: Request, job: str) -> Any:
        return self._results_page(request, self._get_job(request, job))

    def _results_page(self, request: Request, job: dict[str, Any]) -> Any:
        if error := job["status"].get("errorResult"):
            raise ApiError(job["_error"], error["reason"], error["message"])
        statistics = job["statistics"].get("query", {})
        meta: dict[str, Any] = {"kind": "bigquery#getQueryResultsResponse", "jobReference": job["jobReference"]}
        meta |= {"jobComplete": True, "cacheHit": False, "etag": job["etag"]}
        meta |= {key: statistics[key] for key in ("totalBytesProcessed", "numDmlAffectedRows") if key in statistics}
        identity = job["jobReference"]["jobId"]
        if identity not in self._results:
            return meta
        fields, rows = self._results[identity]
        return self._sent({**meta, "schema": {"fields": fields}}, fields, rows, request)

    def _rows_of_job(self, job: str) -> tuple[list[Field], pa.Table]:
        if job not in self._results:
            raise ApiError(404, "notFound", f"Not found: Table {self.project}:{_ANONYMOUS}.{job}")
        return self._results[job]

    def _sent(self, meta: dict[str, Any], fields: list[Field], rows: pa.Table, request: Request) -> _Rows:
        asked = {**request.parameters, **(request.body or {})}
        options = asked.get("formatOptions") or {}
        micros = str(asked.get("formatOptions.useInt64Timestamp", options.get("useInt64Timestamp", ""))).lower()
        start = int(asked.get("pageToken") or asked.get("startIndex") or 0)
        wanted = int(asked["maxResults"]) if asked.get("maxResults") is not None else self.page_rows
        page = rows.slice(start, min(wanted, self.page_rows))
        meta["totalRows"] = str(rows.num_rows)
        if start + page.num_rows < rows.num_rows:
            meta["pageToken"] = str(start + page.num_rows)
        return _Rows(meta=meta, rows=self.engine.wire_rows(fields, page, micros=micros == "true"))

    # --- uploads

    def _upload(self, request: Request, headers: Mapping[str, str], content: bytes) -> tuple[int, Any, dict[str, str]]:
        if request.parameters.get("uploadType") == "multipart":
            request.body, data = _multipart(headers["content-type"], content)
            return 200, self._start(request.body, data), {}
        name = uuid.uuid4().hex
        request.body = json.loads(content)
        self._uploads[name] = _Upload(job=request.body)
        return 200, {}, {"Location": f"{self.address}/upload{_API}{request.path.partition(_API)[2]}?upload_id={name}"}

    def _upload_part(
        self, request: Request, headers: Mapping[str, str], content: bytes
    ) -> tuple[int, Any, dict[str, str]]:
        """Take one part of a file; the last one starts the job."""
        upload = self._uploads.get(request.parameters.get("upload_id", ""))
        if upload is None:
            raise ApiError(404, "notFound", "Not found: upload")
        found = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", headers.get("content-range", ""))
        if found is None:
            raise ApiError(400, "invalid", "an upload's part needs a Content-Range")
        if found[1] is not None and int(found[1]) == len(upload.content) and upload.done is None:
            upload.content += content
        if found[3] != "*" and len(upload.content) == int(found[3]):
            upload.done = upload.done or self._start(upload.job, bytes(upload.content))
            return 200, upload.done, {}
        return 308, None, {"Range": f"bytes=0-{len(upload.content) - 1}"} if upload.content else {}


_ANONYMOUS = "_anonymous"
_API = "/bigquery/v2"


def _bind(session: Session, query: Mapping[str, Any]) -> None:
    positional = query.get("parameterMode") == "POSITIONAL"
    for number, parameter in enumerate(query.get("queryParameters") or ()):
        name = f"?{number}" if positional else f"@{parameter['name'].lower()}"
        value, kind = parameter_sql(parameter["parameterType"], parameter["parameterValue"])
        session.cursor.execute(f"SET VARIABLE {quoted(name)} = {value}")
        session.variables[name] = kind


def _unbind(session: Session) -> None:
    session.variables = {name: kind for name, kind in session.variables.items() if name[0] not in "@?"}


def _multipart(content_type: str, content: bytes) -> tuple[Any, bytes]:
    boundary = re.search(r'boundary="?([^";]+)"?', content_type)
    if boundary is None:
        raise ApiError(400, "invalid", "a multipart upload needs a boundary")
    mark = b"--" + boundary[1].encode()
    _, _, rest = content.partition(mark)
    described, _, data = rest.partition(b"\r\n" + mark)
    body = described.partition(b"\r\n\r\n")[2]
    return json.loads(body), data.partition(b"\r\n\r\n")[2].rpartition(b"\r\n" + mark + b"--")[0]


def _page(items: list[Any], request: Request, *, key: str) -> dict[str, Any]:
    start = int(request.parameters.get("pageToken") or 0)
    end = start + int(request.parameters.get("maxResults") or len(items))
    return {key: items[start:end], **({"nextPageToken": str(end)} if end < len(items) else {})}


def _error_body(error: ApiError) -> dict[str, Any]:
    described = {"code": error.status, "message": error.message, "errors": [error.entry()]}
    return {"error": {**described, "status": _GRPC_NAME.get(error.status, "UNKNOWN")}}


_PROJECT = rf"{_API}/projects/(?P<project>[^/]+)"
_DATASET = rf"{_PROJECT}/datasets/(?P<dataset>[^/]+)"
_TABLE = rf"{_DATASET}/tables/(?P<table>[^/]+)"
_JOB = rf"{_PROJECT}/jobs/(?P<job>[^/]+)"
_ROUTES: Iterable[tuple[str, str, Callable[..., Any]]] = (
    ("POST", f"{_PROJECT}/jobs", BigQueryServer._insert_job),
    ("GET", f"{_PROJECT}/queries/(?P<job>[^/]+)", BigQueryServer._query_results),
    ("POST", f"{_PROJECT}/queries", BigQueryServer._query),
    ("GET", _TABLE, BigQueryServer._get_table),
    ("GET", _JOB, BigQueryServer._get_job),
    ("GET", f"{_PROJECT}/jobs", BigQueryServer._list_jobs),
    ("POST", f"{_JOB}/cancel", BigQueryServer._cancel_job),
    ("DELETE", f"{_JOB}/delete", BigQueryServer._delete_job),
    ("GET", f"{_PROJECT}/datasets", BigQueryServer._list_datasets),
    ("POST", f"{_PROJECT}/datasets", BigQueryServer._insert_dataset),
    ("GET", _DATASET, BigQueryServer._get_dataset),
    ("PATCH", _DATASET, BigQueryServer._patch_dataset),
    ("PUT", _DATASET, BigQueryServer._patch_dataset),
    ("DELETE", _DATASET, BigQueryServer._delete_dataset),
    ("GET", f"{_DATASET}/tables", BigQueryServer._list_tables),
    ("POST", f"{_DATASET}/tables", BigQueryServer._insert_table),
    ("PATCH", _TABLE, BigQueryServer._patch_table),
    ("PUT", _TABLE, BigQueryServer._patch_table),
    ("DELETE", _TABLE, BigQueryServer._delete_table),
    ("GET", f"{_TABLE}/data", BigQueryServer._list_rows),
    ("POST", f"{_TABLE}/insertAll", BigQueryServer._insert_all),
    ("POST", f"/upload{_PROJECT}/jobs", BigQueryServer._upload),
    ("PUT", f"/upload{_PROJECT}/jobs", BigQueryServer._upload_part),
)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], bigquery: BigQueryServer) -> None:
        self.bigquery = bigquery
        self._open: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        for connection in list(self._open):
            self.shutdown_request(connection)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Http

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, ValueError, OSError):
            self.close_connection = True  # the client, or this server, has gone

    def _serve(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        parameters = {key: values[-1] for key, values in parse_qs(url.query).items()}
        headers = {key.lower(): value for key, value in self.headers.items()}
        is_json = content and headers.get("content-type", "").startswith("application/json")
        body = json.loads(content) if is_json and not url.path.startswith("/upload") else None
        token = headers.get("authorization")
        request = Request(method=self.command, path=url.path, parameters=parameters, body=body, token=token)
        try:
            status, answer, more = self.server.bigquery.answer(request, headers, content)
        except Exception as error:
            status, more = 500, {}
            answer = _error_body(ApiError(500, "internalError", f"{type(error).__name__} in the test server: {error}"))
        request.status = status
        self._send(status, answer, more)

    def _send(self, status: int, answer: Any, headers: Mapping[str, str]) -> None:
        if isinstance(answer, _Rows):
            text = json.dumps(answer.meta)[:-1] + ', "rows": [' + ",".join(answer.rows) + "]}"
        else:
            hidden = isinstance(answer, dict) and "_error" in answer
            shown = {key: value for key, value in answer.items() if key != "_error"} if hidden else answer
            text = "" if answer is None else json.dumps(shown)
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(content)))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - the names http.server calls
