"""Files in S3, through the client of boto3 that dagster-aws makes."""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC
from typing import Any, Protocol

from ml_assets.core.day_files import ListedFile
from ml_assets.core.errors import FileChanged, SourceDenied, SourceError, SourceMissing, SourceUnavailable

_PIECE = 1 << 20
_GONE = {"NoSuchKey", "PreconditionFailed", "404", "412"}
_WAIT = {"SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "429"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
_DENIED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "401", "403"}


class S3Client(Protocol):
    """What is used of boto3's client of S3."""

    def list_objects_v2(self, **request: str) -> Mapping[str, Any]:
        """List up to a thousand objects."""
        ...

    def get_object(self, **request: str) -> Mapping[str, Any]:
        """Open an object."""
        ...


class S3FileStore:
    """The FileStore port on ``s3://bucket/folder``; the version of a file is its ETag.

    ``connect`` makes the client, once, when the store is first asked. The client should not try again by itself
    (``max_attempts=0``): whoever reads the store does, up to a deadline.
    """

    def __init__(self, bucket: str, folder: str, *, connect: Callable[[], S3Client]) -> None:
        self._bucket = bucket
        self._prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
        self._connect = connect
        self._made: S3Client | None = None

    def list(self, *, after: str = "", before: str | None = None) -> Iterator[ListedFile]:
        """Yield the files whose paths lie between these two, both excluded, sorted by path."""
        request = {"Bucket": self._bucket, "Prefix": self._prefix}
        if after:
            request["StartAfter"] = f"{self._prefix}{after}"
        while True:
            with self._told(f"cannot list {self.address()}"):
                page = self._client.list_objects_v2(**request)
            for found in page.get("Contents", ()):
                path = str(found["Key"]).removeprefix(self._prefix)
                if before is not None and path >= before:
                    return
                if path:  # the folder itself, as the console makes it
                    yield ListedFile(
                        path=path,
                        size=found["Size"],
                        version=found["ETag"],
                        modified_at=found["LastModified"].astimezone(UTC),
                    )
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def open(self, file: ListedFile) -> Iterator[bytes]:
        """Yield the content of a file piece by piece; S3 itself refuses it where the ETag is another one now."""
        key = f"{self._prefix}{file.path}"
        with self._told(f"cannot read {self.address(file.path)}"):
            body = self._client.get_object(Bucket=self._bucket, Key=key, IfMatch=file.version)["Body"]
            with body:
                yield from body.iter_chunks(_PIECE)

    def address(self, path: str = "") -> str:
        """Return the URL of a file, or of the folder itself."""
        return f"s3://{self._bucket}/{self._prefix}{path}"

    @property
    def _client(self) -> S3Client:
        if self._made is None:
            self._made = self._connect()
        return self._made

    @contextmanager
    def _told(self, what: str) -> Generator[None]:
        """Raise what the client raises as one of this project's errors that says what to do."""
        from botocore import exceptions as aws

        try:
            yield
        except aws.ClientError as error:
            raise self._refusal(what, error.response) from error
        except (aws.NoCredentialsError, aws.PartialCredentialsError, aws.ProfileNotFound) as error:
            raise SourceDenied(f"{what}: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
        except (aws.CredentialRetrievalError, aws.SSOError, aws.UnauthorizedSSOTokenError) as error:
            raise SourceDenied(f"{what}: {error}; renew the credentials of AWS") from error
        except (aws.HTTPClientError, aws.IncompleteReadError, aws.ResponseStreamingError) as error:
            raise SourceUnavailable(f"{what}: {error}") from error
        except aws.BotoCoreError as error:
            raise SourceError(f"{what}: {error}") from error

    def _refusal(self, what: str, response: Mapping[str, Any]) -> SourceError:
        code = str(response.get("Error", {}).get("Code", ""))
        said = f"{what}: S3 answers {code}, {response.get('Error', {}).get('Message', '')}".rstrip(", ")
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code == "NoSuchBucket":
            return SourceMissing(
                f"{what}: there is no bucket {self._bucket!r}; create it, or correct ML_ASSETS_SOURCES"
            )
        if code in _EXPIRED:
            return SourceDenied(f"{said}; the token has expired: renew the credentials of AWS")
        if code in _DENIED:
            return SourceDenied(f"{said}; check the AWS credentials, and that they allow to list and read the bucket")
        if code in _GONE:
            return FileChanged(f"{what}: it was replaced or removed since it was listed; run the day again")
        if code in _WAIT or status >= 500:
            return SourceUnavailable(said)
        return SourceError(said)
