"""What the server refuses, with the status that HTTP has for it."""

from clickseg_infer.errors import EngineError, ServerError


class NotFoundError(ServerError):
    """A session, an object or a scan that is not there."""

    status = 404


class ChangedError(ServerError):
    """A scan whose file is not the one that was read any more."""

    status = 409


class TooLargeError(ServerError):
    """More bytes or voxels than the server takes."""

    status = 413


class TooManyError(ServerError):
    """More sessions or memory than the server has."""

    status = 429


class StorageError(ServerError):
    """What a page sends cannot be kept: the disk is full, for one."""

    status = 507


def status_of(error: Exception) -> int:
    """The HTTP status of a deliberate error: a refusal's own, 500 for an engine's, else 400."""
    if isinstance(error, EngineError):
        return 500
    status: int = getattr(error, "status", 400)
    return status
