"""Which kinds of URLs results can be kept at, and what they need."""

from pathology.errors import MissingExtraError

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_ENDS_WITH_THE_PROCESS = ("memory",)


def check_protocol(protocol: str, url: str) -> None:
    """Whether stores of this kind can be used here.

    Raises:
        MissingExtraError: their package is not installed.
        ValueError: there are none, or only this process would see what is written.
    """
    from fsspec.registry import get_filesystem_class

    protocol = protocol.lower()
    if "::" in url:
        raise ValueError(f"{url}: a URL within a URL; give the place itself")
    if protocol in _ENDS_WITH_THE_PROCESS:
        raise ValueError(f"{url}: is seen by this process alone and gone with it; use a folder")
    try:
        get_filesystem_class(protocol)
    except ValueError as error:
        raise ValueError(f"{url}: {protocol}:// is no kind of store that is known here") from error
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        how = f'pip install "bcos-pathology[{extra}]"' if extra else " ".join(str(error).split())
        raise MissingExtraError(f"{url}: needs another package: {how}") from error
