"""The engine of a search by its name."""

from __future__ import annotations

import sys

import pytest

from embedsvc.errors import InvalidInputError, MissingExtraError
from embedsvc.mining.engine import open_engine
from embedsvc.mining.options import MiningOptions
from embedsvc.server.jobs import ray_cluster
from indexing.engines import LocalEngine


def test_local_is_this_process() -> None:
    with open_engine("local", None, 3) as engine:
        assert isinstance(engine, LocalEngine)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in ("ray_engine", "ray_connection"):
        monkeypatch.delitem(sys.modules, f"indexing.{name}", raising=False)
    with (
        pytest.raises(MissingExtraError, match=r"engine ray needs the \[ray\] extra"),
        open_engine("ray", None, None),
    ):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "dask"}, "engine 'dask' is unknown; choose local, ray"),
        ({"ray_address": "10.0.0.1:6379"}, "ray_address is for engine ray"),
    ],
)
def test_options_that_cannot_be_right_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        MiningOptions(**options)


def test_clients_do_not_choose_the_cluster_of_a_server() -> None:
    asked = {"engine": "ray", "ray_address": None}
    assert ray_cluster(asked, "10.0.0.1:6379") == {"ray_address": "10.0.0.1:6379"}
    assert ray_cluster({"engine": "local", "ray_address": None}, "10.0.0.1:6379") == {}
    assert ray_cluster({}, None) == {}  # a kind of job that searches nothing
    with pytest.raises(InvalidInputError, match="this server has no ray_address"):
        ray_cluster(asked, None)
    with pytest.raises(InvalidInputError, match="ray_address is not that of this server"):
        ray_cluster({"engine": "ray", "ray_address": "6.6.6.6:6379"}, "10.0.0.1:6379")
