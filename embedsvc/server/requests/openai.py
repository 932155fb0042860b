"""POST /v1/embeddings: OpenAI's fields, and every option of an encoding under its own name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from embedsvc.options import EncodeOptions, InputType, OutputDtype, Priority
from embedsvc.server.requests.body import StrictRequest
from embedsvc.tokens import Truncate


def _texts(given: Any) -> Any:
    """One text → a list of one; token ids are refused with the reason."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list):
        raise ValueError("a string or a list of strings is expected")
    if not given:
        raise ValueError("the list is empty")
    first = given[0][0] if isinstance(given[0], list) and given[0] else given[0]
    if isinstance(first, int) and not isinstance(first, bool):
        raise ValueError(
            "token ids are not taken, because they belong to one tokenizer; send texts "
            "(in LangChain: check_embedding_ctx_length=False)"
        )
    return given


Texts = Annotated[
    list[str],
    Field(fail_fast=True),  # an error for each of millions of items takes gigabytes
    BeforeValidator(_texts),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    ),
]


class EncodeFields(StrictRequest):
    """The options of an encoding."""

    input_type: InputType | None = Field(None, description="Takes the model's prompt for that role.")
    prompt_name: str | None = Field(None, description="One of the model's prompts, e.g. query.")
    prompt: str | None = Field(None, description="A text put before every input.")
    dimensions: int | None = Field(None, description="Shorter vectors, for Matryoshka models.")
    force_dimensions: bool = Field(False, description="Any length, for a model not trained for it too.")
    normalize: bool = Field(True, description="Unit vectors; cut vectors are renormalised.")
    truncate: Truncate = Field("none", description="Where to cut a text that is too long; none refuses it.")
    max_tokens: int | None = Field(None, description="A lower limit than the model's.")
    output_dtype: OutputDtype = Field(
        "float32",
        description="int8 and uint8 keep cosines (see the model's calibration); binary and ubinary pack "
        "eight dimensions into a byte.",
    )

    def options(self) -> EncodeOptions:
        """Return the options that the request asks for."""
        return EncodeOptions(
            input_type=self.input_type,
            prompt_name=self.prompt_name,
            prompt=self.prompt,
            dimensions=self.dimensions,
            force_dimensions=self.force_dimensions,
            normalize=self.normalize,
            truncate=self.truncate,
            max_tokens=self.max_tokens,
            output_dtype=self.output_dtype,
        )


class EmbeddingsRequest(EncodeFields):
    input: Texts = Field(description="One text or a list of texts.")
    model: str | None = Field(None, description="The name from GET /v1/models; may be left out.")
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64: the bytes of output_dtype, little-endian; quicker to send and to read."
    )
    priority: Priority | None = Field(
        None, description="bulk lets others go first; by default the number of texts decides."
    )
    timeout_ms: int | None = Field(None, ge=1, description="Give up after this long.")
    timings: bool = Field(False, description="Say where the time went.")
    user: str | None = Field(None, description="Accepted for OpenAI clients and ignored.")
