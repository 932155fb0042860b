"""The other side of `isolated`: the process that holds a model and runs one thread per worker."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from embedsvc.errors import EmbedsvcError
from embedsvc.model_folder import open_model_folder
from embedsvc.runtime import PreparedText, Runtime
from embedsvc.scheduling.isolated import ModelFacts, ModelSpec, Refusal, Work
from embedsvc.scheduling.layout import open_laid_out


def main() -> None:
    """Open the model named on the control socket, then answer batches until that socket closes."""
    _expendable()
    control_socket = socket.socket(fileno=int(sys.argv[1]))
    control = Connection(os.dup(control_socket.fileno()))
    try:
        spec: ModelSpec = control.recv()
        runtime = open_laid_out(open_model_folder(Path(spec.folder)), spec.options, spec.workers)
    except EOFError:
        return
    except Exception as error:
        control.send(_told(error))
        return
    facts = ModelFacts(runtime.name, runtime.dimension, runtime.batch_tokens, runtime.pads, runtime.workers)
    control.send(facts)
    for _ in range(runtime.workers):
        _, fds, _, _ = socket.recv_fds(control_socket, 1, 1)
        if not fds:
            return
        answer = _answers(runtime, Connection(fds[0]))
        threading.Thread(target=answer, daemon=True).start()
    control_socket.recv(1)  # returns when the server closes its end or ends itself
    os._exit(0)  # a thread may hang in a batch


def _answers(runtime: Runtime, connection: Connection) -> Callable[[], None]:
    def answer() -> None:
        try:
            while True:
                what, rows = connection.recv()
                batch = [PreparedText(ids, prompt_tokens) for ids, prompt_tokens in rows]
                connection.send(_done(runtime, what, batch))
        except (EOFError, ConnectionError):  # the server has closed
            return
        except BaseException:  # no memory, not even to log it; half a message may be left in the socket
            os._exit(1)

    return answer


def _done(runtime: Runtime, what: Work, batch: list[PreparedText]) -> Any:
    try:
        return runtime.embed_tokens(batch) if what == "embed_tokens" else runtime.embed(batch)
    except BaseException as error:  # a panic in Rust is no Exception
        return _told(error)


def _told(error: BaseException) -> Refusal:
    message = error.message if isinstance(error, EmbedsvcError) else str(error)
    return Refusal(type(error).__name__, message)


def _expendable() -> None:
    """When memory runs out, the kernel shall take this process rather than the server."""
    try:
        Path("/proc/self/oom_score_adj").write_text("500")
    except OSError:
        return
