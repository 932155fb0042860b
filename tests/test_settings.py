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
    assert (settings.model, settings.max_batch_texts, settings.max_queue_texts) == ((), 5, 8192)
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


def test_the_file_goes_after_options_and_variables(tmp_path, monkeypatch):
    file = tmp_path / "serve.toml"
    file.write_text('model = ["a", "name=b"]\nport = 1\nmax_batch_texts = 2\nrequest_timeout_s = 3\n')
    monkeypatch.setenv("EMBEDSVC_CONFIG", str(file))
    monkeypatch.setenv("EMBEDSVC_MAX_BATCH_TEXTS", "20")
    settings = load_settings(port=10)
    assert settings.model == ("a", "name=b")
    assert (settings.port, settings.max_batch_texts, settings.request_timeout_s) == (10, 20, 3.0)
    other = tmp_path / "other.toml"
    other.write_text("port = 4\n")
    assert load_settings(config=other).port == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "config {file}: no option is called prot; the nearest is port"),
        ("[server]\nport = 1", "config {file}: no option is called server; the nearest is "),
        ("config = 'x'", "config {file}: no option is called config; the nearest is "),
        ("port = 'x'", "port in {file} is 'x': it should be a valid integer"),
        ("port = 70000", "port in {file} is 70000: it should be less than or equal to 65535"),
        ("model = 3", "model in {file} is 3: it should be a valid list"),
        ("port 1", "config {file} is not TOML: "),
        ("tls_key = 'k.pem'", "tls_key is given without tls_cert; HTTPS needs both"),
    ],
)
def test_a_wrong_file_is_refused_naming_it_and_the_key(tmp_path, text, message):
    file = tmp_path / "serve.toml"
    file.write_text(text)
    with pytest.raises(InvalidInputError) as caught:
        load_settings(config=file)
    assert caught.value.message.startswith(message.format(file=file))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match=r"nope.toml cannot be read: No such file or directory$"):
        load_settings(config=tmp_path / "nope.toml")


def test_lists_in_variables_are_separated_by_commas(monkeypatch):
    monkeypatch.setenv("EMBEDSVC_MODEL", "models/a, b=org/name")
    monkeypatch.setenv("EMBEDSVC_CORS_ORIGINS", "https://a.example,http://127.0.0.1:3000")
    settings = load_settings()
    assert settings.model == ("models/a", "b=org/name")
    assert settings.cors_origins == ("https://a.example", "http://127.0.0.1:3000")
    monkeypatch.setenv("EMBEDSVC_MODEL", "a,,b")
    with pytest.raises(
        InvalidInputError, match=r"^the variable EMBEDSVC_MODEL has an empty entry at position 1$"
    ):
        load_settings()


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/", "https://app.example/page", "**"])
def test_an_origin_that_no_browser_sends_is_refused(origin):
    with pytest.raises(InvalidInputError, match=r"^cors_origins has .*; an origin is scheme://host"):
        load_settings(cors_origins=(origin,))


def test_the_milvus_backend_needs_its_address(monkeypatch):
    monkeypatch.setenv("EMBEDSVC_BACKEND", "milvus")
    with pytest.raises(InvalidInputError, match=r"^backend = milvus is given without milvus_uri"):
        load_settings()
    monkeypatch.setenv("EMBEDSVC_MILVUS_URI", "http://milvus:19530")
    assert load_settings(milvus_token="root:secret").milvus_uri == "http://milvus:19530"
    monkeypatch.setenv("EMBEDSVC_BACKEND", "qdrant")
    with pytest.raises(InvalidInputError, match="EMBEDSVC_BACKEND is 'qdrant'"):
        load_settings()


def test_a_precision_may_go_by_the_name_that_export_takes_too(monkeypatch):
    monkeypatch.setenv("EMBEDSVC_PRECISION", "fp32")
    assert load_settings().precision == "float32"
    assert load_settings(precision="int8").precision == "int8"
    monkeypatch.setenv("EMBEDSVC_PRECISION", "int4")
    with pytest.raises(InvalidInputError, match=r"PRECISION.*'float32' or 'int8'"):
        load_settings()
