"""Every option of the server: its unit, default and bounds. The only reader of ``EMBEDSVC_*`` variables."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from embedsvc.errors import InvalidInputError
from embedsvc.model_folder import PRECISION_ALIASES, Precision

PREFIX = "EMBEDSVC_"
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\s]+")

# In a variable, and wherever one string is given, the entries are separated by commas.
Texts = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """Options of the server: each is an option of `embedsvc serve`, a variable ``EMBEDSVC_<NAME>`` and a
    key of the settings file too.
    """

    model_config = SettingsConfigDict(
        validate_default=True, env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    config: Path | None = Field(None, description="TOML file with any of these options as keys.")

    model: Texts = Field(
        (),
        description="Model folder or hub id, or NAME=FOLDER_OR_ID for the name it is served under; "
        "none is the bundled model.",
    )
    self_check: bool = Field(
        True,
        description="Compare an ONNX model's vectors with the reference (its export's, or torch's) at load.",
    )
    revision: str | None = Field(None, description="Revision of models that come from the hub.")
    runtime: Literal["auto", "static", "onnx", "torch"] = Field("auto", description="What runs the model.")
    precision: Precision = Field(
        "float32",
        description="Which ONNX file of the model is run: float32 (fp32), or int8 where the folder has it.",
    )
    device: str | None = Field(None, description="Device for torch models: cpu, cuda, cuda:1 …")
    workers: int | None = Field(
        None,
        ge=1,
        description="Batches that the model works on side by side; none measures at the start.",
    )
    isolation: Literal["auto", "process", "thread"] = Field(
        "auto",
        description="Where models run: auto puts all but static tables into a process of their own, "
        "which is restarted when it dies or hangs.",
    )
    batch_timeout_s: float = Field(
        60.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds after which one batch of the model is taken for hung and its process is "
        "replaced.",
    )
    max_model_bytes: int | None = Field(
        None,
        ge=1,
        description="Memory in bytes that loaded models may take together; the least recently used is "
        "unloaded above it.",
    )

    reranker: str | None = Field(
        None,
        description="Folder or hub id of a cross-encoder for the rerank routes and for searches that ask to "
        "rerank; without one the routes compare vectors.",
    )

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 is every interface.")
    port: int = Field(8080, ge=0, le=65535, description="TCP port to listen on; 0 picks a free one.")
    tls_cert: Path | None = Field(None, description="PEM file of the certificate chain; with it: HTTPS.")
    tls_key: Path | None = Field(None, description="PEM file of the certificate's private key.")
    keys_file: Path | None = Field(
        None, description="File of API keys (embedsvc keys); none lets everybody in."
    )
    cors_origins: Texts = Field(
        (),
        description="Origin whose pages may call the server from a browser, as https://app.example; "
        "* is every one.",
    )

    data_dir: Path = Field(Path("~/.local/share/embedsvc"), description="Folder of the collections and jobs.")
    backend: Literal["embedded", "milvus"] = Field(
        "embedded", description="Where collections are kept: in the data_dir, or in Milvus ([milvus] extra)."
    )
    milvus_uri: str | None = Field(
        None,
        min_length=1,
        description="Milvus for backend milvus, as http://127.0.0.1:19530; the name of a file is opened with "
        "milvus-lite.",
    )
    milvus_token: str | None = Field(None, description="API key of Milvus, or USER:PASSWORD.")
    demo: bool = Field(False, description="Load the sample documents into the collection 'sample'.")

    batch_tokens: int | None = Field(
        None, ge=1, description="Padded tokens that the model sees at once; none is the runtime's own."
    )
    interactive_texts: int = Field(
        32,
        ge=0,
        description="Requests with at most this many texts are interactive unless they say otherwise; "
        "larger ones are bulk.",
    )
    max_batch_texts: int = Field(2048, ge=1, description="Most texts or documents of one request.")
    max_queue_texts: int = Field(
        8192, ge=1, description="Most texts waiting in each lane of a model; above it requests get 429."
    )
    max_queue_s: float = Field(
        10.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds that an interactive request may be expected to wait; it gets 429 above them.",
    )
    max_mine_sentences: int = Field(
        10_000, ge=1, description="Most sentences per side of one bitext mining request."
    )
    jobs_root: Path | None = Field(
        None,
        description="Folder below which jobs may read files by their path; none: jobs take uploads only.",
    )
    max_upload_bytes: int = Field(
        8 * 1024**3, ge=1, description="Largest upload of one job, in bytes, all of its files together."
    )
    max_running_jobs: int = Field(1, ge=1, description="Jobs that run side by side; others wait in order.")
    max_queued_jobs: int = Field(32, ge=1, description="Jobs that wait or run; above it new ones get 429.")
    job_threads: int | None = Field(
        None, ge=1, description="Threads of each job; none is one for every other processor."
    )
    ray_address: str | None = Field(
        None,
        description="HOST:PORT of the Ray cluster for jobs with engine ray; none: jobs compute here only.",
    )
    job_niceness: int = Field(
        10,
        ge=0,
        le=19,
        description="How far jobs stand behind requests: 19 runs them only on idle processors, 0 as equals.",
    )
    job_device: str = Field("cpu", description="Device of torch models in jobs: cpu, cuda, cuda:1 …")
    job_retention_s: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Seconds after its end at which a job is deleted with its files; none keeps it.",
    )
    max_body_bytes: int = Field(16 * 1024 * 1024, ge=1, description="Largest request body, in bytes.")
    request_timeout_s: float = Field(
        60.0, gt=0, allow_inf_nan=False, description="Seconds after which a request is given up with 503."
    )
    shutdown_grace_s: int = Field(
        30, ge=1, description="Seconds that running requests get to end on SIGTERM."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log lines shown."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Log lines for people, or one JSON object per line and a line per request."
    )
    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://\S+$",
        description="OpenTelemetry collector that gets a trace per request, as http://127.0.0.1:4318.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given goes before variables before the settings file."""
        check_variables(os.environ)
        config = init_settings().get("config") or env_settings().get("config")
        values = read_config(Path(config).expanduser()) if config else {}
        return init_settings, env_settings, InitSettingsSource(settings_cls, values)

    @field_validator("precision", mode="before")
    @classmethod
    def _by_its_own_name(cls, given: object) -> object:
        return PRECISION_ALIASES.get(given, given) if isinstance(given, str) else given

    @field_validator("model", "cors_origins", mode="before")
    @classmethod
    def _split_at_commas(cls, given: object) -> object:
        return tuple(given.split(",")) if isinstance(given, str) else given

    @field_validator("model", "cors_origins")
    @classmethod
    def _no_empty_entry(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        stripped = tuple(entry.strip() for entry in given)
        if "" in stripped:
            raise ValueError(f"has an empty entry at position {stripped.index('')}")
        return stripped

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for entry in given:
            if not _ORIGIN.fullmatch(entry):
                raise ValueError(f"has {entry!r}; an origin is scheme://host[:port] without a path, or *")
        return given

    @field_validator("config", "data_dir", "jobs_root", "keys_file", "tls_cert", "tls_key")
    @classmethod
    def _expand_home(cls, given: Path | None) -> Path | None:
        return given.expanduser() if given else None

    @model_validator(mode="after")
    def _fit_together(self) -> Settings:
        if self.max_queue_texts < self.max_batch_texts:
            raise ValueError(
                f"max_queue_texts = {self.max_queue_texts} cannot hold one request of "
                f"max_batch_texts = {self.max_batch_texts}"
            )
        if self.backend == "milvus" and self.milvus_uri is None:
            raise ValueError("backend = milvus is given without milvus_uri")
        if (self.tls_cert is None) != (self.tls_key is None):
            given, other = ("tls_cert", "tls_key") if self.tls_cert else ("tls_key", "tls_cert")
            raise ValueError(f"{given} is given without {other}; HTTPS needs both")
        return self


def load_settings(**given: Any) -> Settings:
    """Return the settings: what is given, else the environment, else the settings file, else the default.

    Raises InvalidInputError naming the option, the variable or the file's key that is wrong.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise InvalidInputError(first["msg"].removeprefix("Value error, ")) from error
        name = str(first["loc"][0])
        if first["type"] == "value_error":
            raise InvalidInputError(f"{_origin(name, given)} {first['ctx']['error']}", param=name) from error
        reason = first["msg"].removeprefix("Input ").replace("tuple", "list")
        raise InvalidInputError(
            f"{_origin(name, given)} is {first['input']!r}: it {reason}", param=name
        ) from error


def _origin(name: str, given: Mapping[str, Any]) -> str:
    variables = {variable.upper(): value for variable, value in os.environ.items()}
    if name in given:
        return name
    if variables.get(f"{PREFIX}{name.upper()}"):
        return f"the variable {PREFIX}{name.upper()}"
    return f"{name} in {given.get('config') or variables[f'{PREFIX}CONFIG']}"


def check_variables(environment: Mapping[str, str]) -> None:
    """Raise InvalidInputError for an ``EMBEDSVC_*`` variable that no option has."""
    known = [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]
    for name in sorted(environment):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            nearest = _nearest(name.upper(), known)
            raise InvalidInputError(f"no option has the variable {name}; the nearest is {nearest}")


def read_config(path: Path) -> dict[str, Any]:
    """Return the options in a settings file; raise InvalidInputError naming the file and what is wrong."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInputError(f"config {path} cannot be read: {error.strerror}", param="config") from error
    except ValueError as error:  # also bytes that are not UTF-8
        raise InvalidInputError(f"config {path} is not TOML: {error}", param="config") from error
    known = set(Settings.model_fields) - {"config"}
    for name in values:
        if name not in known:
            nearest = _nearest(name, known)
            raise InvalidInputError(
                f"config {path}: no option is called {name}; the nearest is {nearest}", param="config"
            )
    return values


def _nearest(name: str, known: Iterable[str]) -> str:
    return get_close_matches(name, list(known), n=1, cutoff=0)[0]
