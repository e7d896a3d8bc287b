"""What went wrong with a store, in one line, whichever library says it."""

import errno

_BUSY = {errno.EBUSY, errno.ETIMEDOUT, errno.ECONNRESET, getattr(errno, "EREMOTEIO", errno.EIO)}
# Libraries' own classes by name: they are not imported to ask.
_OUT_OF_REACH = {
    "EndpointConnectionError", "ConnectTimeoutError", "ClientConnectorError", "ProxyError",
}  # fmt: skip
_CUT = {"HTTPClientError", "ClientConnectionError", "ClientPayloadError", "ChecksumError"}
_NO_CREDENTIALS = {
    "NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError",
    "GoogleAuthError", "CredentialRetrievalError",
}  # fmt: skip


def is_passing(error: BaseException) -> bool:
    """Whether it may go well in a while: too many requests, a cut connection."""
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if isinstance(error, OSError) and error.errno in _BUSY:
        return True
    return bool(_kinds(error) & (_OUT_OF_REACH | _CUT)) or _status(error) in range(500, 600)


def is_there(error: BaseException) -> bool:
    """Whether something was not written because a file of that name is there."""
    if isinstance(error, FileExistsError):
        return True
    # Several at once on S3: 409, one of them is writing it.
    said = [str(each) for each in (error, error.__cause__) if each is not None]
    return any(word in text for text in said for word in ("PreconditionFailed", "pre-conditions"))


def is_unknown(error: BaseException) -> bool:
    """Whether the store does not know what it was asked for, such as conditions."""
    return isinstance(error, OSError) and error.errno == errno.ENOSYS


def one_line(error: BaseException, where: str, doing: str) -> str:
    """Where, what and what to do.

    Args:
        error: of fsspec, or of the libraries beneath.
        where: the URL.
        doing: what could not be done: ``read``, ``written``, ``listed`` or ``removed``.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}: no room for it on this machine ({text}); set TMPDIR to a larger disk"
    if isinstance(error, FileNotFoundError):
        return f"{where}: cannot be {doing}: there is no such bucket ({text}); make it first"
    if _kinds(error) & _NO_CREDENTIALS:
        return (
            f"{where}: cannot be {doing}: no credentials ({text}); set them as the service's own"
            " tools take them, in variables such as AWS_PROFILE or in configuration files"
        )
    if isinstance(error, PermissionError) or "Forbidden" in text or _status(error) in (401, 403):
        return (
            f"{where}: may not be {doing} ({text}); look at the credentials and at what they allow"
        )
    if _kinds(error) & _OUT_OF_REACH:
        return (
            f"{where}: the store cannot be reached ({text}); look at its endpoint and the network"
        )
    if isinstance(error, OSError) and error.errno == errno.EBUSY:
        return f"{where}: the store is too busy ({text}); use fewer workers, or run again later"
    return f"{where}: cannot be {doing}: {text}"


def _kinds(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _status(error: BaseException) -> int:
    """The status of an HTTP answer, 0 where there is none."""
    status = str(getattr(error, "code", None) or getattr(error, "status", None))
    return int(status) if status.isdecimal() else 0
