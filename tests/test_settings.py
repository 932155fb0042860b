from __future__ import annotations

from pathlib import Path

import pytest

from embedsvc.errors import InvalidInputError
from embedsvc.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    import os

    for name in [name for name in os.environ if name.startswith("EMBEDSVC_")]:
        monkeypatch.delenv(name)


def test_given_options_go_before_variables_before_defaults(monkeypatch):
    monkeypatch.setenv("EMBEDSVC_PORT", "9000")
    monkeypatch.setenv("EMBEDSVC_DEMO", "true")
    monkeypatch.setenv("EMBEDSVC_DATA_DIR", "/srv/data")
    monkeypatch.setenv("EMBEDSVC_MODEL", "")  # empty is as if not set
    settings = load_settings(port=9001, max_batch_texts=5)
    assert (settings.port, settings.demo, settings.data_dir) == (9001, True, Path("/srv/data"))
    assert (settings.model, settings.max_batch_texts, settings.max_queue_texts) == (None, 5, 8192)
    assert load_settings().port == 9000


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("EMBEDSVC_PROT", "EMBEDSVC_PORT"),
        ("EMBEDSVC_BATCH_TOKEN", "EMBEDSVC_BATCH_TOKENS"),
        ("EMBEDSVC_MAX_BATCH_SIZE", "EMBEDSVC_MAX_BATCH_TEXTS"),
        ("embedsvc_datadir", "EMBEDSVC_DATA_DIR"),
    ],
)
def test_misspelt_variables_are_refused_naming_the_nearest(monkeypatch, variable, nearest):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(
        InvalidInputError, match=f"no option has the variable {variable}; the nearest is {nearest}$"
    ):
        load_settings()


def test_other_variables_are_of_no_concern(monkeypatch):
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("EMBEDSVCX", "1")
    assert load_settings().port == 8080


def test_bad_values_name_their_origin(monkeypatch):
    with pytest.raises(InvalidInputError, match=r"^port is 70000: it should be less than or equal to 65535"):
        load_settings(port=70000)
    with pytest.raises(InvalidInputError, match=r"^request_timeout_s is inf"):
        load_settings(request_timeout_s=float("inf"))
    with pytest.raises(
        InvalidInputError, match=r"^max_queue_texts = 10 cannot hold one request of max_batch_texts = 20"
    ):
        load_settings(max_queue_texts=10, max_batch_texts=20)
    monkeypatch.setenv("EMBEDSVC_RUNTIME", "cuda")
    with pytest.raises(
        InvalidInputError, match=r"^the variable EMBEDSVC_RUNTIME is 'cuda': it should be 'auto'"
    ):
        load_settings()


def test_every_option_is_described_with_its_unit():
    units = {
        "bytes": "bytes",
        "_s": "Seconds",
        "texts": "texts",
        "tokens": "tokens",
        "sentences": "sentences",
    }
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith((".", "…")), name
        for suffix, word in units.items():
            if name.endswith(suffix):
                assert word in field.description, name


def test_the_data_dir_is_in_the_home_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("EMBEDSVC_DATA_DIR", raising=False)
    assert load_settings().data_dir == Path.home() / ".local" / "share" / "embedsvc"
    monkeypatch.setenv("EMBEDSVC_DATA_DIR", "/data/x")
    assert load_settings().data_dir == Path("/data/x")
