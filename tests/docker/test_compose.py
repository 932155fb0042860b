"""The compose files against the image and the settings they set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from stages import read_stages

from embedsvc.settings import Settings

FOLDER = Path(__file__).parents[2] / "docker"


class ComposeLoader(yaml.SafeLoader):
    """YAML with compose's own tag for a list that replaces another file's."""


ComposeLoader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))


def read(name: str) -> dict[str, Any]:
    with (FOLDER / name).open(encoding="utf-8") as file:
        content: dict[str, Any] = yaml.load(file, ComposeLoader)
        return content


COMPOSE = read("compose.yaml")
KEYS = read("compose.keys.yaml")
SERVICES = {**COMPOSE["services"], "keys": KEYS["services"]["embedsvc"]}
FULL = ("embedsvc", "embedsvc-cuda")


@pytest.mark.parametrize("service", SERVICES)
def test_the_variables_are_options_of_the_server(service: str) -> None:
    known = {f"EMBEDSVC_{name.upper()}" for name in Settings.model_fields}
    assert set(SERVICES[service]["environment"]) <= known


@pytest.mark.parametrize("service", FULL)
def test_a_service_has_the_least_rights(service: str) -> None:
    given = SERVICES[service]
    assert given["read_only"] is True
    assert given["tmpfs"] == ["/tmp"]
    assert given["cap_drop"] == ["ALL"]
    assert given["security_opt"] == ["no-new-privileges:true"]
    assert given["restart"] == "unless-stopped"
    assert {"cpus", "memory"} <= set(given["deploy"]["resources"]["limits"])


@pytest.mark.parametrize("service", FULL)
def test_a_service_is_reached_from_this_machine_only(service: str) -> None:
    (port,) = SERVICES[service]["ports"]
    address, _, inside = port.rsplit(":", 2)
    assert (address, inside) == ("127.0.0.1", "8080")


@pytest.mark.parametrize("service", FULL)
def test_a_service_keeps_its_data_in_a_volume_of_its_own(service: str) -> None:
    (volume,) = SERVICES[service]["volumes"]
    name, inside = volume.split(":")
    assert inside == "/data"
    assert name in COMPOSE["volumes"]


def test_no_two_services_share_a_port_or_a_volume() -> None:
    for key in ("ports", "volumes"):
        assert len({SERVICES[service][key][0] for service in FULL}) == len(FULL)


@pytest.mark.parametrize("service", FULL)
def test_the_health_check_is_the_image_s(service: str) -> None:
    steps = read_stages(FOLDER / "Dockerfile")["runtime"].steps
    (check,) = [step.value for step in steps if step.keyword == "HEALTHCHECK"]
    assert SERVICES[service]["healthcheck"]["test"] == ["CMD", *json.loads(check.split("CMD")[1])]


@pytest.mark.parametrize("service", FULL)
def test_a_service_is_built_from_a_target_that_exists(service: str) -> None:
    build = SERVICES[service]["build"]
    assert (FOLDER / build["context"]).resolve() == FOLDER.parent
    assert build["target"] in read_stages(FOLDER.parent / build["dockerfile"])


@pytest.mark.parametrize("service", FULL)
def test_a_service_is_given_longer_to_end_than_it_needs(service: str) -> None:
    assert int(SERVICES[service]["stop_grace_period"].removesuffix("s")) > Settings().shutdown_grace_s


def test_the_cuda_service_is_started_only_when_named() -> None:
    assert SERVICES["embedsvc-cuda"]["profiles"] == ["cuda"]
    assert "profiles" not in SERVICES["embedsvc"]


def test_the_keys_are_where_the_server_looks_for_them() -> None:
    (secret,) = KEYS["secrets"]
    assert SERVICES["keys"]["secrets"] == [secret]
    assert SERVICES["keys"]["environment"] == {"EMBEDSVC_KEYS_FILE": f"/run/secrets/{secret}"}
