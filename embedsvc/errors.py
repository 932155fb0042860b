"""The error tree. Every error a user can cause carries an HTTP status and a stable code.

    EmbedsvcError
    ├── InvalidInputError       400  invalid_input        a value in the request or file is wrong
    │   ├── TextTooLongError    400  text_too_long        more tokens than the model takes
    │   └── DimensionMismatchError 400 dimension_mismatch vectors of another width
    ├── NotFoundError           404  not_found            an unknown collection, document or model
    ├── JobStateError           409  job_state            a job is not in the state that this needs
    ├── ModelError              500  model_error          a model folder that cannot be opened
    │   └── ModelMismatchError  409  model_mismatch       stored vectors are of another model
    ├── StorageError            500  storage_error        a file or database that cannot be trusted
    ├── MissingExtraError       501  missing_extra        a feature whose optional package is absent
    ├── ModelFailedError        500  model_failed         the model failed on one text
    ├── OverloadedError         429  overloaded           the queue is full; try again
    └── UnavailableError        503  unavailable          starting, draining or unhealthy
        ├── ModelLostError      503  model_lost           the model's process died or hangs; it is replaced
        └── DeadlineError       503  timeout              not done within the time given

The CLI prints the message on one line and exits with 1 (2 for usage errors); the server
answers with the status and ``{"error": {"message", "type", "code", "param"}}``.
"""

from __future__ import annotations


class EmbedsvcError(Exception):
    """Base of all errors raised on purpose; ``param`` names the offending field, if any."""

    status = 500
    code = "internal_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidInputError(EmbedsvcError):
    """A value given by the user is wrong: the message names it, its position and the limit."""

    status = 400
    code = "invalid_input"


class TextTooLongError(InvalidInputError):
    """A text has more tokens than the model takes and truncation was not asked for."""

    code = "text_too_long"


class DimensionMismatchError(InvalidInputError):
    """Vectors, index or collection disagree about the number of dimensions."""

    code = "dimension_mismatch"


class NotFoundError(EmbedsvcError):
    """The named collection, document, model or file does not exist."""

    status = 404
    code = "not_found"


class JobStateError(EmbedsvcError):
    """A job is not, or no longer, in a state in which that can be done."""

    status = 409
    code = "job_state"


class ModelError(EmbedsvcError):
    """A model folder is broken, incomplete or of a kind that cannot be served."""

    code = "model_error"


class ModelMismatchError(ModelError):
    """Stored vectors were made with another model than the one at hand."""

    status = 409
    code = "model_mismatch"


class StorageError(EmbedsvcError):
    """Stored data is damaged or was written by an incompatible version."""

    code = "storage_error"


class MissingExtraError(EmbedsvcError):
    """An optional package is needed; the message names the extra that brings it."""

    status = 501
    code = "missing_extra"

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs the [{extra}] extra: in a checkout of embedsvc, pip install '.[{extra}]'"
        )


class ModelFailedError(EmbedsvcError):
    """The model failed on one text, others of the same batch went well."""

    code = "model_failed"


class OverloadedError(EmbedsvcError):
    """The queue is full; the caller should wait ``retry_after`` seconds."""

    status = 429
    code = "overloaded"

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnavailableError(EmbedsvcError):
    """The server is starting, draining, or its model is not healthy."""

    status = 503
    code = "unavailable"


class ModelLostError(UnavailableError):
    """The process or thread that ran the model died or hangs; another one takes its place.

    ``fatal``: the texts are not worth another try.
    """

    code = "model_lost"

    def __init__(self, message: str, *, fatal: bool = False) -> None:
        super().__init__(message)
        self.fatal = fatal


class DeadlineError(UnavailableError):
    """The request was not done within the time it or the server allows."""

    code = "timeout"
