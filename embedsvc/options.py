"""What a caller may ask of an encoding. The same names in the library, the commands and over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from embedsvc.tokens import Truncate

InputType = Literal["query", "document"]
OutputDtype = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
Priority = Literal["interactive", "bulk"]


@dataclass(frozen=True)
class EncodeOptions:
    """How texts become vectors; each field is explained at `Encoder.encode`."""

    input_type: InputType | None = None
    prompt_name: str | None = None
    prompt: str | None = None
    dimensions: int | None = None
    force_dimensions: bool = False
    normalize: bool = True
    truncate: Truncate = "none"
    max_tokens: int | None = None
    output_dtype: OutputDtype = "float32"
