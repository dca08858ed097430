"""Files in HDFS over WebHDFS, its HTTP interface: plain requests, no Hadoop client."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ml_assets.core.day_files import Folder, ListedFile, walk
from ml_assets.core.errors import FileChanged, SourceDenied, SourceError, SourceMissing, SourceUnavailable

if TYPE_CHECKING:
    from requests import Response, Session

_PIECE = 1 << 20
_SECONDS = (10.0, 60.0)  # to connect, and between two pieces
_DENIED = {"SecurityException", "AccessControlException", "AuthenticationException", "InvalidToken"}
# A name node that is starting, or is not the active one of two.
_WAIT = {"StandbyException", "RetriableException", "SafeModeException"}


class WebHdfsFileStore:
    """The FileStore port on ``webhdfs://host:port/folder``; the version of a file is its id, length and time.

    ``connect`` makes the session, once, when the store is first asked. ``user`` is who asks, where the cluster believes
    it; a cluster with Kerberos needs a session that proves it.
    """

    def __init__(self, host: str, folder: str, *, connect: "Callable[[], Session]", user: str | None = None) -> None:
        self._host = host
        self._folder = f"/{folder.strip('/')}" if folder.strip("/") else ""
        self._parameters = {"user.name": user} if user else {}
        self._connect = connect
        self._made: Session | None = None

    def list(self, *, after: str = "", before: str | None = None) -> Iterator[ListedFile]:
        """Yield the files whose paths lie between these two, both excluded, sorted by path."""
        return walk(self._children, after=after, before=before)

    def open(self, file: ListedFile) -> Iterator[bytes]:
        """Yield the content of a file piece by piece; what it is after the last piece must be what was listed."""
        import requests

        try:
            with self._asked("OPEN", file.path) as response:
                yield from response.iter_content(_PIECE)
            is_same = _version(self._told("GETFILESTATUS", file.path)["FileStatus"]) == file.version
        except FileNotFoundError:
            is_same = False
        except requests.RequestException as error:
            raise SourceUnavailable(f"cannot read {self.address(file.path)}: {error}") from error
        if not is_same:
            where = self.address(file.path)
            raise FileChanged(f"cannot read {where}: it was replaced or removed since it was listed; run the day again")

    def address(self, path: str = "") -> str:
        """Return the URL of a file, or of the folder itself."""
        return f"webhdfs://{self._host}{self._folder}/{path}"

    def _children(self, folder: str) -> Iterator[ListedFile | Folder]:
        after = ""
        while True:
            try:
                answer = self._told("LISTSTATUS_BATCH", folder, startAfter=after)["DirectoryListing"]
            except FileNotFoundError as error:
                if folder:  # removed since its own folder was listed
                    return
                raise SourceMissing(
                    f"there is no folder {self.address()}; create it, or correct ML_ASSETS_SOURCES"
                ) from error
            for told in answer["partialListing"]["FileStatuses"]["FileStatus"]:
                after = str(told["pathSuffix"])
                path = f"{folder}/{after}" if folder else after
                yield Folder(path=path) if told["type"] == "DIRECTORY" else _listed(path, told)
            if not answer["remainingEntries"]:
                return

    def _told(self, operation: str, path: str, **parameters: str) -> Mapping[str, Any]:
        response = self._asked(operation, path, **parameters)
        try:
            return response.json()
        except ValueError as error:
            raise SourceError(
                f"{self.address(path)}: the answer is no JSON but {response.headers.get('Content-Type')}; is this the "
                "address of WebHDFS, port 9870 of the name node or 14000 of HttpFS?"
            ) from error

    def _asked(self, operation: str, path: str, **parameters: str) -> "Response":
        """Return an answer; raise FileNotFoundError where there is no such path."""
        import requests

        if self._made is None:
            self._made = self._connect()
        what = f"cannot {'read' if operation == 'OPEN' else 'list'} {self.address(path)}"
        address = f"http://{self._host}/webhdfs/v1{quote(f'{self._folder}/{path}')}"
        asked = {"op": operation, **self._parameters, **{name: value for name, value in parameters.items() if value}}
        try:
            # A file is sent by the data node that the name node redirects to.
            response = self._made.get(address, params=asked, timeout=_SECONDS, stream=operation == "OPEN")
        except requests.RequestException as error:
            raise SourceUnavailable(f"{what}: {error}") from error
        if not response.ok:
            with response:
                raise _refusal(what, response)
        return response


def _listed(path: str, told: Mapping[str, Any]) -> ListedFile:
    modified_at = datetime.fromtimestamp(told["modificationTime"] / 1000, UTC)
    return ListedFile(path=path, size=told["length"], version=_version(told), modified_at=modified_at)


def _version(told: Mapping[str, Any]) -> str:
    return f"{told['fileId']} {told['length']} {told['modificationTime']}"


def _refusal(what: str, response: "Response") -> Exception:
    try:
        remote = response.json()["RemoteException"]
        kind, message = str(remote["exception"]), str(remote["message"]).partition("\n")[0]
    except (ValueError, KeyError, TypeError):
        kind, message = response.reason, ""
    if kind == "FileNotFoundException" and response.status_code == 404:
        return FileNotFoundError(message)
    said = f"{what}: HDFS answers {response.status_code} {kind}, {message}".rstrip(", ")
    if kind in _WAIT or response.status_code in (429, 502, 503, 504):
        return SourceUnavailable(said)
    if kind in _DENIED or response.status_code in (401, 403):
        return SourceDenied(f"{said}; check the user or the token, and that it may read the folder")
    return SourceError(said)
