"""A test server for Bigtable's gRPC API: tables in memory, real protocol buffers on 127.0.0.1.

It carries google-cloud-bigtable: CreateTable, MutateRow(s) with SetCell, ReadRows with keys, ranges, a limit and the
filters of family, column and newest cells. The client finds it by ``BIGTABLE_EMULATOR_HOST``.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.cloud.bigtable_admin_v2.types import CreateTableRequest, Table
from google.cloud.bigtable_v2 import types
from google.rpc.status_pb2 import Status

# Row key -> (family, column) -> versions as (microseconds, value), the newest first.
Cells = dict[tuple[str, bytes], list[tuple[int, bytes]]]


class BigtableServer:
    """Bigtable in memory; a context manager that serves at ``address`` until it ends."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[bytes, Cells]] = {}
        self.families: dict[str, set[str]] = {}
        self.reads: list[types.ReadRowsRequest] = []
        self._breaks: list[tuple[int, grpc.StatusCode]] = []
        self._server = grpc.server(ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "google.bigtable.v2.Bigtable",
                    {
                        "ReadRows": _handler(grpc.unary_stream_rpc_method_handler, self._read, types.ReadRowsRequest),
                        "MutateRow": _handler(grpc.unary_unary_rpc_method_handler, self._one, types.MutateRowRequest),
                        "MutateRows": _handler(
                            grpc.unary_stream_rpc_method_handler, self._many, types.MutateRowsRequest
                        ),
                    },
                ),
                grpc.method_handlers_generic_handler(
                    "google.bigtable.admin.v2.BigtableTableAdmin",
                    {"CreateTable": _handler(grpc.unary_unary_rpc_method_handler, self._create, CreateTableRequest)},
                ),
            )
        )
        self._port = self._server.add_insecure_port("127.0.0.1:0")

    @property
    def address(self) -> str:
        """The host and port to give to clients."""
        return f"127.0.0.1:{self._port}"

    def __enter__(self) -> "BigtableServer":
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    def break_read(self, *, after_rows: int, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, n: int = 1) -> None:
        """End the next reads with an error after so many rows and the first cell of the row that follows."""
        self._breaks += [(after_rows, code)] * n

    def _create(self, request: CreateTableRequest, context: grpc.ServicerContext) -> Table:
        name = f"{request.parent}/tables/{request.table_id}"
        self.tables[name] = {}
        self.families[name] = set(request.table.column_families)
        return Table(name=name)

    def _one(self, request: types.MutateRowRequest, context: grpc.ServicerContext) -> types.MutateRowResponse:
        self._mutate(self._rows(request.table_name, context), request.row_key, request.mutations)
        return types.MutateRowResponse()

    def _many(
        self, request: types.MutateRowsRequest, context: grpc.ServicerContext
    ) -> Iterator[types.MutateRowsResponse]:
        rows = self._rows(request.table_name, context)
        for entry in request.entries:
            self._mutate(rows, entry.row_key, entry.mutations)
        done = [types.MutateRowsResponse.Entry(index=n, status=Status()) for n in range(len(request.entries))]
        yield types.MutateRowsResponse(entries=done)

    def _mutate(self, rows: dict[bytes, Cells], key: bytes, mutations: Any) -> None:
        for mutation in mutations:
            cell = mutation.set_cell
            versions = rows.setdefault(key, {}).setdefault((cell.family_name, cell.column_qualifier), [])
            versions[:] = [version for version in versions if version[0] != cell.timestamp_micros]
            versions.append((cell.timestamp_micros, cell.value))
            versions.sort(reverse=True)

    def _rows(self, table: str, context: grpc.ServicerContext) -> dict[bytes, Cells]:
        if table not in self.tables:
            context.abort(grpc.StatusCode.NOT_FOUND, f"table {table!r} not found")
        return self.tables[table]

    def _read(self, request: types.ReadRowsRequest, context: grpc.ServicerContext) -> Iterator[types.ReadRowsResponse]:
        self.reads.append(request)
        rows = self._rows(request.table_name, context)
        breaks_after, code = self._breaks.pop(0) if self._breaks else (None, grpc.StatusCode.OK)
        n_sent = 0
        for key in sorted(rows):
            if not _is_asked_for(key, request.rows):
                continue
            chunks = _chunks(key, _filtered(rows[key], request.filter))
            if not chunks:
                continue
            if n_sent == breaks_after:
                chunks[0].commit_row = False
                yield types.ReadRowsResponse(chunks=chunks[:1] if len(chunks) > 1 else [])
                break
            yield types.ReadRowsResponse(chunks=chunks)
            n_sent += 1
            if n_sent == request.rows_limit:
                return
        if breaks_after is not None:
            context.abort(code, "injected by the test")


def _handler(kind: Callable[..., Any], method: Callable[..., Any], request: Any) -> Any:
    return kind(method, request_deserializer=request.deserialize, response_serializer=lambda m: type(m).serialize(m))


def _is_asked_for(key: bytes, rows: types.RowSet) -> bool:
    if not rows.row_keys and not rows.row_ranges:
        return True
    return key in rows.row_keys or any(_is_within(key, part) for part in rows.row_ranges)


def _is_within(key: bytes, part: types.RowRange) -> bool:
    return (
        (
            key >= part.start_key_closed
            if part.start_key_closed
            else key > part.start_key_open or not part.start_key_open
        )
        and (not part.end_key_open or key < part.end_key_open)
        and (not part.end_key_closed or key <= part.end_key_closed)
    )


def _filtered(cells: Cells, rule: types.RowFilter) -> Cells:
    for part in rule.chain.filters if rule.chain.filters else [rule]:
        if part.family_name_regex_filter:
            cells = {k: v for k, v in cells.items() if re.fullmatch(part.family_name_regex_filter, k[0])}
        elif part.column_qualifier_regex_filter:
            cells = {k: v for k, v in cells.items() if re.fullmatch(part.column_qualifier_regex_filter, k[1])}
        elif part.cells_per_column_limit_filter:
            cells = {k: v[: part.cells_per_column_limit_filter] for k, v in cells.items()}
        elif part != types.RowFilter():
            raise NotImplementedError(f"the test server knows no filter {part}")
    return cells


def _chunks(key: bytes, cells: Cells) -> list[types.ReadRowsResponse.CellChunk]:
    chunks = [
        types.ReadRowsResponse.CellChunk(
            row_key=key, family_name=family, qualifier=column, timestamp_micros=at, value=value
        )
        for (family, column), versions in sorted(cells.items())
        for at, value in versions
    ]
    if chunks:
        chunks[-1].commit_row = True
    return chunks
