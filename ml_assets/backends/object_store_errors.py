"""What S3 and GCS mean when they refuse: found, expected and what to do, from the answer that obstore passes on."""

import re
from dataclasses import dataclass

from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

from ml_assets.core.errors import StoreError, StoreRefused, StoreUnavailable

_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_MESSAGE = re.compile(r"<(?:Message|Details)>([^<]*)<")
# What the libraries of credentials say when the server that renews a token cannot be reached.
_UNREACHABLE = re.compile(
    r"TransportError|ConnectionError|ConnectTimeout|ReadTimeout|Failed to resolve|Could not connect"
)
# obstore prints its source code's view of an error after the error itself.
_DEBUG = "Debug source:"
_MOST_CHARACTERS = 300

# What a request met that may be gone in a moment. A request that got no answer at all has no status.
_TRANSIENT = (408, 409, 429, 500, 502, 503, 504)
_TRANSIENT_CODES = (
    *("SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "OperationAborted"),
    *("ConditionalRequestConflict", "NoSuchUpload"),  # the upload was completed or removed behind our back
)
# The code of an answer -> what to do.
_ADVICE = {
    "NoSuchBucket": "create the bucket, or name another: it follows from ML_ASSETS_PROJECT and the environment",
    "ExpiredToken": "the credentials have expired: log in again, or give the run credentials that renew themselves",
    "InvalidToken": "the session token belongs to no valid session: log in again",
    "InvalidAccessKeyId": "the access key is unknown: set AWS_ACCESS_KEY_ID, or AWS_PROFILE, to a key that exists",
    "SignatureDoesNotMatch": "the secret does not belong to the access key: set AWS_SECRET_ACCESS_KEY anew",
    "RequestTimeTooSkewed": "the clock of this machine is wrong by over 15 minutes: set it (NTP) and try again",
    "PermanentRedirect": "the bucket lies in another region: set AWS_REGION to the bucket's",
    "AuthorizationHeaderMalformed": "the bucket lies in another region: set AWS_REGION to the one named here",
    "IllegalLocationConstraintException": "the bucket lies in another region: set AWS_REGION to the bucket's",
    "AccessDenied": "grant this identity to list the bucket, and to read, write and delete its objects (deploy/iam)",
    "UserProjectAccountProblem": "the project's billing is off or its quota is used up: see its billing page",
    "QuotaExceeded": "the project's quota is used up: raise it, or remove what is not needed (`ml-assets prune`)",
    "EntityTooLarge": "the object is larger than the store takes",
}
_ADVICE_BY_STATUS = {
    401: "ExpiredToken",
    403: "AccessDenied",
}


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What the store said. ``status`` is 0 where it said nothing, ``code`` empty where it named none."""

    status: int
    code: str
    message: str

    @staticmethod
    def of(error: Exception) -> "Refusal":
        """Read the answer out of an error of obstore's."""
        text = str(error).partition(_DEBUG)[0]
        status, code, message = _STATUS.search(text), _CODE.search(text), _MESSAGE.search(text)
        if "redirect without LOCATION" in text:
            return Refusal(status=301, code="PermanentRedirect", message="the store answers with a redirect")
        if isinstance(error, UnauthenticatedError | PermissionDeniedError) and not status:
            # A provider of credentials failed in this process: no request was made.
            said = text.partition("credential provider:")[2].strip() or text.strip()
            code = "" if (is_unreachable := _UNREACHABLE.search(said)) else "NoCredentials"
            return Refusal(status=0 if is_unreachable else 401, code=code, message=said[:_MOST_CHARACTERS])
        return Refusal(
            status=int(status[1]) if status else 0,
            code=code[1] if code else "",
            message=(message[1] if message else text.partition("<")[0]).strip()[:_MOST_CHARACTERS],
        )

    @property
    def is_transient(self) -> bool:
        """Whether the same request may be answered in a moment."""
        if self.code in _ADVICE:
            return False
        return self.status == 0 or self.status in _TRANSIENT or self.code in _TRANSIENT_CODES

    @property
    def is_of_the_object(self) -> bool:
        """Whether it says that there is no such object, and not that there is no such bucket."""
        return self.status == 404 and self.code in ("", "NoSuchKey")

    def as_error(self, address: str, *, waited_seconds: float) -> StoreError:
        """Return the error to raise where this is the last word on a file."""
        found = " ".join(filter(None, (str(self.status) if self.status else "no answer", self.code, self.message)))
        if self.is_transient:
            return StoreUnavailable(
                f"{address}: the store could not be used for {waited_seconds:.0f} s ({found}); expected an answer: see "
                "whether it can be reached from here and what its status page says, then try again"
            )
        if self.code == "NoCredentials":
            advice = "log in again (`aws sso login`, `gcloud auth application-default login`), or set a key"
        else:
            code = self.code if self.code in _ADVICE else _ADVICE_BY_STATUS.get(self.status, "")
            advice = _ADVICE.get(code, "read what it says")
        return StoreRefused(f"{address}: the store refuses ({found}); {advice}")
