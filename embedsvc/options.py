"""What can be asked of an encoding; the same names in the library, the commands, the settings and HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from embedsvc.tokens import Truncate

Priority = Literal["interactive", "bulk"]
InputType = Literal["query", "document"]
OutputDtype = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]


@dataclass(frozen=True)
class EncodeOptions:
    input_type: InputType | None = None
    prompt_name: str | None = None
    prompt: str | None = None
    dimensions: int | None = None
    force_dimensions: bool = False
    normalize: bool = True
    truncate: Truncate = "none"
    max_tokens: int | None = None
    output_dtype: OutputDtype = "float32"
