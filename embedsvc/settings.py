"""Every option of the server: its unit, default and bounds. The only reader of ``EMBEDSVC_*`` variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from embedsvc.errors import InvalidInputError

PREFIX = "EMBEDSVC_"


class Settings(BaseSettings):
    """Options of the server; each is a variable ``EMBEDSVC_<NAME>`` and an option of `embedsvc serve` too."""

    model_config = SettingsConfigDict(
        validate_default=True, env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    model: tuple[str, ...] = Field((), description="Model folder or hub id; none is the bundled model.")
    runtime: Literal["auto", "static", "onnx", "torch"] = Field("auto", description="What runs the model.")
    device: str | None = Field(None, description="Device for torch models: cpu, cuda, cuda:1 …")
    precision: Literal["float32", "int8"] = Field("float32", description="Which ONNX file is run.")
    revision: str | None = Field(None, description="Revision of hub models.")
    workers: int | None = Field(None, ge=1, description="Batches side by side; none measures.")
    isolation: Literal["auto", "process", "thread"] = Field("auto", description="Where models run.")
    batch_timeout_s: float = Field(60.0, gt=0, allow_inf_nan=False, description="A batch hangs after it.")
    max_model_bytes: int | None = Field(None, ge=1, description="Memory of all loaded models.")
    interactive_texts: int = Field(32, ge=1, description="Larger requests are bulk.")
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 is every interface.")
    port: int = Field(8080, ge=0, le=65535, description="TCP port to listen on; 0 picks a free one.")
    data_dir: Path = Field(Path("~/.local/share/embedsvc"), description="Folder of the collections.")
    demo: bool = Field(False, description="Load the sample documents into the collection 'sample'.")
    batch_tokens: int | None = Field(
        None, ge=1, description="Padded tokens that the model sees at once; none is the runtime's own."
    )
    max_batch_texts: int = Field(2048, ge=1, description="Most texts or documents of one request.")
    max_queue_texts: int = Field(
        8192, ge=1, description="Most texts waiting for the model; above it requests get 429."
    )
    max_mine_sentences: int = Field(
        10_000, ge=1, description="Most sentences per side of one bitext mining request."
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

    @model_validator(mode="before")
    @classmethod
    def _refuse_misspelt_variables(cls, given: dict[str, Any]) -> dict[str, Any]:
        check_variables(os.environ)
        return given

    @field_validator("data_dir")
    @classmethod
    def _expand_home(cls, given: Path) -> Path:
        return given.expanduser()

    @model_validator(mode="after")
    def _queue_holds_a_request(self) -> Settings:
        if self.max_queue_texts < self.max_batch_texts:
            raise ValueError(
                f"max_queue_texts = {self.max_queue_texts} cannot hold one request of "
                f"max_batch_texts = {self.max_batch_texts}"
            )
        return self


def load_settings(**given: Any) -> Settings:
    """Return the settings: what is given, else the environment, else the default.

    Raises InvalidInputError naming the option or the variable that is wrong.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise InvalidInputError(first["msg"].removeprefix("Value error, ")) from error
        name = str(first["loc"][0])
        origin = name if name in given else f"the variable {PREFIX}{name.upper()}"
        reason = first["msg"].removeprefix("Input ")
        raise InvalidInputError(f"{origin} is {first['input']!r}: it {reason}", param=name) from error


def check_variables(environment: Mapping[str, str]) -> None:
    """Raise InvalidInputError for an ``EMBEDSVC_*`` variable that no option has."""
    known = [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]
    for name in sorted(environment):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            nearest = get_close_matches(name.upper(), known, n=1, cutoff=0)[0]
            raise InvalidInputError(f"no option has the variable {name}; the nearest is {nearest}")
