"""A file as an answer, whole or in parts; a wrong range is told as every other error."""

from __future__ import annotations

from fastapi.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from embedsvc.errors import InvalidInputError
from embedsvc.server.errors import error_response


class RangeError(InvalidInputError):
    """The header Range asks for no part of the file."""

    status = 416
    code = "wrong_range"


class CheckedFile(FileResponse):
    """Starlette's answer but for its errors, which are plain text."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = False

        async def checking(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] >= 400:
                refused = True
            if not refused:
                await send(message)

        await super().__call__(scope, receive, checking)
        if refused:
            error = RangeError("the header Range asks for no part of the file")
            await error_response(error, scope["path"])(scope, receive, send)
