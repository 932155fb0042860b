"""The way to a Ray cluster, and out again: what is wrong with it is said in one line and within seconds."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator

import ray

from indexing.errors import IndexingError

_SECONDS = 10.0  # for a server to answer
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = 4  # the type of the first frame that an HTTP/2 server sends


@contextlib.contextmanager
def ray_connection(address: str | None) -> Iterator[None]:
    """Be connected to a cluster; one that the caller is connected to already is taken, and stays connected.

    ``address`` is that of the cluster's head, HOST:PORT. None is the cluster that this machine is a node of
    or, where it is of none, one that is started on this machine and ends with the connection.

    Raises:
        IndexingError: nothing answers there, or it is no cluster of the same versions of Ray and Python.
    """
    if ray.is_initialized():
        _check_connected(address)
        yield
        return
    if address not in (None, "auto", "local"):
        check_cluster(str(address))
    _connect(address)
    try:
        yield
    finally:
        ray.shutdown()


def _check_connected(address: str | None) -> None:
    found = ray.get_runtime_context().gcs_address
    if address not in (None, "auto", found):
        raise IndexingError(f"ray is connected to {found} already, not to {address}")


def check_cluster(address: str) -> None:
    """Raise IndexingError unless the head of a cluster, a gRPC server, answers at HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "//" in address:
        raise IndexingError(f"ray address {address!r}: expected HOST:PORT of a cluster's head, as {_EXAMPLE}")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "0" and not _speaks_http2(connection):
                raise IndexingError(f"ray address {address}: what answers there is no head of a Ray cluster")
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise IndexingError(f"ray address {address}: cannot be reached: {reason}") from error


_EXAMPLE = "10.0.0.1:6379"


def _speaks_http2(connection: socket.socket) -> bool:
    """Whether a server greets as every gRPC server does; the client of Ray would wait minutes for it."""
    connection.sendall(_HTTP2_PREFACE)
    head = b""
    while len(head) < 9:
        received = connection.recv(9 - len(head))
        if not received:
            return False
        head += received
    return head[3] == _SETTINGS


def _connect(address: str | None) -> None:
    with _kept_sigterm():
        try:
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"at {address}" if address else "of this machine"
            reason = " ".join(str(error).split())
            raise IndexingError(f"no connection to the Ray cluster {where}: {reason}") from error


@contextlib.contextmanager
def _kept_sigterm() -> Iterator[None]:
    """Undo that Ray takes the signal over: how the process ends is its own affair."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
