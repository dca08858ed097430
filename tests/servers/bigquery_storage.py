"""A test server for the read part of BigQuery's Storage API: real gRPC on 127.0.0.1, one table."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pyarrow as pa
from google.cloud.bigquery_storage import BigQueryReadClient
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport
from google.cloud.bigquery_storage_v1.types import (
    CreateReadSessionRequest,
    ReadRowsRequest,
    ReadRowsResponse,
    ReadSession,
)

_SERVICE = "google.cloud.bigquery.storage.v1.BigQueryRead"


class BigQueryStorageServer:
    """Answers every read session with the same rows, in batches of ``batch_rows``; a context manager.

    The rows are spread over as many streams as the session admits. ``tables`` are the names that were asked for;
    ``refusal`` is what to answer instead of a session; ``stalls_with``, instead of what follows the first batch, is a
    status, or nothing at all where it is OK.
    """

    def __init__(
        self,
        rows: pa.Table,
        *,
        batch_rows: int,
        refusal: grpc.StatusCode | None = None,
        stalls_with: grpc.StatusCode | None = None,
    ) -> None:
        self.rows, self.batch_rows, self.refusal, self.stalls_with = rows, batch_rows, refusal, stalls_with
        self.tables: list[str] = []
        self._ended = threading.Event()
        methods = {
            "CreateReadSession": grpc.unary_unary_rpc_method_handler(
                self._session, CreateReadSessionRequest.deserialize, ReadSession.serialize
            ),
            "ReadRows": grpc.unary_stream_rpc_method_handler(
                self._batches, ReadRowsRequest.deserialize, ReadRowsResponse.serialize
            ),
        }
        self._server = grpc.server(ThreadPoolExecutor(max_workers=2))
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, methods)])
        self._port = self._server.add_insecure_port("127.0.0.1:0")

    def __enter__(self) -> "BigQueryStorageServer":
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.stop(grace=None).wait()

    def client(self) -> BigQueryReadClient:
        """Return a client of this server."""
        channel = grpc.insecure_channel(f"127.0.0.1:{self._port}")
        return BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))

    def _session(self, request: Any, context: grpc.ServicerContext) -> ReadSession:
        self.tables.append(request.read_session.table)
        if self.refusal is not None:
            context.abort(self.refusal, "refused by the test")
        schema = {"serialized_schema": self.rows.schema.serialize().to_pybytes()}
        n_streams = request.max_stream_count
        streams = [{"name": f"s/streams/{number}/{n_streams}"} for number in range(n_streams)]
        return ReadSession(name="s", arrow_schema=schema, streams=streams)

    def _batches(self, request: Any, context: grpc.ServicerContext) -> Any:
        number, n_streams = map(int, request.read_stream.split("/")[-2:])
        first, end = (self.rows.num_rows * of // n_streams for of in (number, number + 1))
        rows = self.rows.slice(first, end - first).slice(request.offset)
        for n, batch in enumerate(rows.to_batches(max_chunksize=self.batch_rows)):
            if n and self.stalls_with is grpc.StatusCode.OK:
                self._ended.wait()
            if n and self.stalls_with is not None:
                context.abort(self.stalls_with, "stalled by the test")
            yield ReadRowsResponse(
                row_count=batch.num_rows,
                arrow_record_batch={"serialized_record_batch": batch.serialize().to_pybytes()},
                arrow_schema={"serialized_schema": batch.schema.serialize().to_pybytes()},
            )
