"""Files in Google Cloud Storage, through the client of google-cloud-storage that dagster-gcp makes."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC
from typing import TYPE_CHECKING, cast

from ml_assets.core.day_files import ListedFile
from ml_assets.core.errors import FileChanged, SourceDenied, SourceError, SourceMissing, SourceUnavailable

if TYPE_CHECKING:
    from google.cloud.storage import Client

_PIECE = 8 << 20  # each piece is a request
_SECONDS = 60


class GcsFileStore:
    """The FileStore port on ``gs://bucket/folder``; the version of a file is its generation and its CRC32C.

    ``connect`` makes the client, once, when the store is first asked. Nothing is tried again here: whoever reads the
    store does, up to a deadline.
    """

    def __init__(self, bucket: str, folder: str, *, connect: "Callable[[], Client]") -> None:
        self._bucket = bucket
        self._prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
        self._connect = connect
        self._made: Client | None = None

    def list(self, *, after: str = "", before: str | None = None) -> Iterator[ListedFile]:
        """Yield the files whose paths lie between these two, both excluded, sorted by path."""
        with self._told(f"cannot list {self.address()}"):
            found = self._client.list_blobs(
                self._bucket,
                prefix=self._prefix,
                start_offset=f"{self._prefix}{after}" if after else None,
                end_offset=None if before is None else f"{self._prefix}{before}",
                timeout=_SECONDS,
                retry=None,  # pyright: ignore[reportArgumentType] - the library's own word for no retry
            )
            for blob in found:
                path = str(blob.name).removeprefix(self._prefix)
                if before is not None and path >= before:
                    return
                if path > after:  # offsets include what they name; and "" is the folder itself
                    yield ListedFile(
                        path=path,
                        size=int(blob.size),
                        version=f"{blob.generation} {blob.crc32c}",
                        modified_at=blob.updated.astimezone(UTC),
                    )

    def open(self, file: ListedFile) -> Iterator[bytes]:
        """Yield the content of a file piece by piece; its CRC32C must be what the listing said."""
        import google_crc32c

        generation, _, expected = file.version.partition(" ")
        address, checksum = self.address(file.path), google_crc32c.Checksum()
        with self._told(f"cannot read {address}"):
            blob = self._client.bucket(self._bucket).blob(f"{self._prefix}{file.path}", generation=int(generation))
            # Raw: the bytes as they are stored, though the object may be marked for the server to unpack.
            reader = blob.open("rb", chunk_size=_PIECE, timeout=_SECONDS, retry=None, raw_download=True)
            while piece := cast("bytes", reader.read(_PIECE)):
                checksum.update(piece)
                yield piece
        if _base64(checksum.digest()) != expected:
            raise FileChanged(f"cannot read {address}: its content is not what was listed; run the day again")

    def address(self, path: str = "") -> str:
        """Return the URL of a file, or of the folder itself."""
        return f"gs://{self._bucket}/{self._prefix}{path}"

    @property
    def _client(self) -> "Client":
        if self._made is None:
            self._made = self._connect()
        return self._made

    @contextmanager
    def _told(self, what: str) -> Generator[None]:
        """Raise what the client raises as one of this project's errors that says what to do."""
        import requests
        from google.api_core import exceptions as google
        from google.auth import exceptions as auth

        try:
            yield
        except google.NotFound as error:
            if what.startswith("cannot read"):
                raise FileChanged(
                    f"{what}: it was replaced or removed since it was listed; run the day again"
                ) from error
            raise SourceMissing(
                f"{what}: there is no bucket {self._bucket!r}; create it, or correct ML_ASSETS_SOURCES"
            ) from error
        except google.PreconditionFailed as error:
            raise FileChanged(f"{what}: it was replaced since it was listed; run the day again") from error
        except (google.Unauthorized, google.Forbidden) as error:
            raise SourceDenied(
                f"{what}: Google answers {error}; check GOOGLE_APPLICATION_CREDENTIALS, and that they allow to list "
                "and read the bucket"
            ) from error
        except (google.ServerError, google.TooManyRequests, google.RetryError) as error:
            raise SourceUnavailable(f"{what}: Google answers {error}") from error
        except google.GoogleAPICallError as error:
            raise SourceError(f"{what}: Google answers {error}") from error
        except auth.TransportError as error:
            raise SourceUnavailable(f"{what}: {error}") from error
        except auth.GoogleAuthError as error:
            raise SourceDenied(f"{what}: {str(error).rstrip('.')}; renew the credentials of Google") from error
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise SourceUnavailable(f"{what}: {error}") from error


def _base64(digest: bytes) -> str:
    import base64

    return base64.b64encode(digest).decode("ascii")
