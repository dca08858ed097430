"""Google Cloud Storage for tests: the gcp-storage-emulator, and the XML API over the same objects.

The emulator speaks the JSON API of Google's Python client. obstore speaks the XML API, of which the emulator has two
calls; here are the others, with what the emulator leaves out: a write under ``x-goog-if-generation-match`` is refused
where Cloud Storage refuses it, and a multi-part upload shows nothing under its name before it is completed.
"""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from email.utils import format_datetime
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import buckets, objects
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

_JSON_API = ("/storage/", "/upload/", "/download/", "/batch/", "/b/")
_PAGE = 1000


class GcsServer(ThreadingHTTPServer):
    """A Cloud Storage with the buckets that ``create_bucket`` made; STORAGE_EMULATOR_HOST is its ``url``.

    ``uploads`` are the multi-part uploads that were begun and neither completed nor aborted: by id their object, and
    the content of each part by number.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.storage = Storage(use_memory_fs=True, data_dir="/nowhere")
        self.uploads: dict[str, tuple[str, dict[int, bytes]]] = {}
        self.lock = threading.RLock()

    @property
    def url(self) -> str:
        """What STORAGE_EMULATOR_HOST must be."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def create_bucket(self, name: str) -> None:
        """Make an empty bucket."""
        buckets.create_bucket(name, self.storage)


@contextmanager
def gcs_server(*buckets: str) -> Iterator[GcsServer]:
    """Run a server with these buckets, until the context ends."""
    with GcsServer() as server:
        for bucket in buckets:
            server.create_bucket(bucket)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Refused(Exception):
    """What the XML API answers with an error: status, code and message."""


class _Handler(RequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet, or each answer waits 40 ms for an acknowledgement
    server: GcsServer

    def __init__(self, request: Any, address: Any, server: GcsServer) -> None:
        super().__init__(server.storage, request, address, server)

    def handle(self) -> None:
        """Let a client go without a word: one that is killed resets its connections."""
        with suppress(ConnectionError):
            super().handle()

    def _serve_get(self) -> None:
        self._serve(super().do_GET)

    def _serve_post(self) -> None:
        self._serve(super().do_POST)

    def _serve_put(self) -> None:
        self._serve(super().do_PUT)

    def _serve_delete(self) -> None:
        self._serve(super().do_DELETE)

    def _serve_head(self) -> None:
        self._serve(lambda: self._answer(501))

    # The names of the library.
    do_GET, do_POST, do_PUT, do_DELETE, do_HEAD = _serve_get, _serve_post, _serve_put, _serve_delete, _serve_head  # noqa: N815

    def _serve(self, json_api: Any) -> None:
        if self.path == "/" or self.path.startswith(_JSON_API):
            self.close_connection = True  # the emulator does not say how long its answers are
            with self.server.lock:
                json_api()
            return
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        bucket, _, name = unquote(parts.path.lstrip("/")).partition("/")
        query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        try:
            with self.server.lock:
                self._refuse_missing_bucket(bucket)
                status, headers, body = self._xml_api(bucket, name, query, content)
        except _Refused as error:
            status, code, message = error.args
            headers, body = {}, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        self._answer(status, headers, body)

    def _refuse_missing_bucket(self, bucket: str) -> None:
        if self.server.storage.get_bucket(bucket) is None:
            raise _Refused(404, "NoSuchBucket", "The specified bucket does not exist.")

    def _xml_api(
        self, bucket: str, name: str, query: dict[str, str], content: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        match self.command:
            case "GET" if not name:
                return 200, {}, self._listing(bucket, query)
            case "GET" | "HEAD":
                return self._read(bucket, name)
            case "POST" if "uploads" in query:
                upload = f"upload-{len(self.server.uploads)}-{name}"
                self.server.uploads[upload] = (name, {})
                return 200, {}, _document("InitiateMultipartUploadResult", Bucket=bucket, Key=name, UploadId=upload)
            case "PUT" if "uploadId" in query:
                self._upload(query["uploadId"])[1][int(query["partNumber"])] = content
                return 200, {"ETag": f'"{hashlib.md5(content).hexdigest()}"'}, b""
            case "POST" if "uploadId" in query:
                return 200, {}, self._complete(bucket, query["uploadId"], content)
            case "DELETE" if "uploadId" in query:
                self._upload(query["uploadId"])
                del self.server.uploads[query["uploadId"]]
                return 204, {}, b""
            case "PUT":
                return 200, self._write(bucket, name, content), b""
            case "DELETE":
                self._object(bucket, name)
                self.server.storage.delete_file(bucket, name)
                return 204, {}, b""
            case _:
                raise _Refused(501, "NotImplemented", f"{self.command} {self.path}")

    def _object(self, bucket: str, name: str) -> dict[str, Any]:
        try:
            return self.server.storage.get_file_obj(bucket, name)
        except NotFound as error:
            raise _Refused(404, "NoSuchKey", "The specified key does not exist.") from error

    def _read(self, bucket: str, name: str) -> tuple[int, dict[str, str], bytes]:
        found, content = self._object(bucket, name), self.server.storage.get_file(bucket, name)
        headers = {
            "ETag": f'"{found["etag"]}"',
            "x-goog-generation": found["generation"],
            "Last-Modified": format_datetime(datetime.fromisoformat(found["updated"]), usegmt=True),
        }
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return 200, headers, content
        first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return 206, headers, content[first : last + 1]

    def _write(self, bucket: str, name: str, content: bytes) -> dict[str, str]:
        wanted = self.headers.get("x-goog-if-generation-match")
        if wanted is not None:
            try:
                generation = str(self._object(bucket, name)["generation"])
            except _Refused:
                generation = "0"
            if generation != wanted:
                raise _Refused(412, "PreconditionFailed", "At least one of the pre-conditions did not hold.")
        kind = self.headers.get("Content-Type") or "application/octet-stream"
        resource = objects._make_object_resource(self.server.url, bucket, name, kind, str(len(content)))
        written = objects._checksums(content, resource)
        self.server.storage.create_file(bucket, name, content, written)
        return {"ETag": f'"{written["etag"]}"', "x-goog-generation": written["generation"]}

    def _upload(self, upload: str) -> tuple[str, dict[int, bytes]]:
        if upload not in self.server.uploads:
            raise _Refused(404, "NoSuchUpload", "The specified upload does not exist.")
        return self.server.uploads[upload]

    def _complete(self, bucket: str, upload: str, asked: bytes) -> bytes:
        name, parts = self._upload(upload)
        numbers = [int(number) for number in re.findall(rb"<PartNumber>(\d+)</PartNumber>", asked)]
        if not set(numbers) <= set(parts):
            raise _Refused(400, "InvalidPart", "A part was not uploaded.")
        written = self._write(bucket, name, b"".join(parts[number] for number in numbers))
        del self.server.uploads[upload]
        return _document("CompleteMultipartUploadResult", Bucket=bucket, Key=name, ETag=written["ETag"])

    def _listing(self, bucket: str, query: dict[str, str]) -> bytes:
        found, _ = self.server.storage.get_file_list(bucket, query.get("prefix", ""))
        after = query.get("continuation-token", query.get("start-after", ""))
        rest = [each for each in found if each["name"] > after]
        page = rest[: int(query.get("max-keys", _PAGE))]
        more = _document("NextContinuationToken", page[-1]["name"]) if len(rest) > len(page) else b""
        rows = b"".join(
            _document("Contents", Key=each["name"], Size=each["size"], LastModified=each["updated"], ETag=each["etag"])
            for each in page
        )
        return b"<ListBucketResult>" + rows + more + b"</ListBucketResult>"

    def _answer(self, status: int, headers: dict[str, str] | None = None, content: bytes = b"") -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _document(element: str, text: str = "", /, **children: str) -> bytes:
    inner = escape(text) + "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in children.items())
    return f"<{element}>{inner}</{element}>".encode()
