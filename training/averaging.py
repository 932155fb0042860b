"""One model from several of the same shape: the mean of their weights (Wortsman et al. 2022).

It helps where the models started from the same weights; checkpoints of one run, or runs on other data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save
from tokenizers import Tokenizer

from embedsvc.encoders.static_table import read_table
from embedsvc.errors import InvalidInputError
from embedsvc.model_folder import ModelFolder, read_json, read_tensors
from embedsvc.textfiles import atomic_write
from training.model_copy import copy_plain, weight_files, write_static_copy

_UNIMPORTANT = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures"}
_WEIGHTS = "model.safetensors"
Tensors = dict[str, NDArray[Any]]


def average_models(sources: Sequence[ModelFolder], out: Path) -> None:
    """Write the mean of the models' weights to ``out``.

    Raises InvalidInputError for fewer than two models, and naming the first that is of another shape or
    has another tokenizer, other modules or other prompts than the first one.
    """
    if len(sources) < 2:
        raise InvalidInputError("an average is of two or more models; name another one", param="average")
    first = sources[0]
    for other in sources[1:]:
        _require_alike(first, other)
    if first.is_static:
        (table,) = _means(sources, lambda source: {"table": read_table(source.modules[0].folder)}).values()
        write_static_copy(first, out, table)
    else:
        copy_plain(first, out)
        _write(_means(sources, _transformer), out / _inside(first, first.modules[0].folder))
        for module in [module for module in first.modules[1:] if (module.folder / _WEIGHTS).is_file()]:
            place = _inside(first, module.folder)
            _write(_means(sources, partial(_module_tensors, place=place)), out / place)


def _module_tensors(source: ModelFolder, place: Path) -> Tensors:
    return read_tensors(source.path / place / _WEIGHTS)


def _inside(source: ModelFolder, folder: Path) -> Path:
    return folder.relative_to(source.path)


def _transformer(source: ModelFolder) -> Tensors:
    files = [path for path in weight_files(source) if path.suffix == ".safetensors"]
    if not files:
        raise InvalidInputError(
            f"{source.path} has no safetensors weights; save it again with sentence-transformers",
            param="average",
        )
    return {name: tensor for path in files for name, tensor in read_tensors(path).items()}


def _means(sources: Sequence[ModelFolder], read: Callable[[ModelFolder], Tensors]) -> Tensors:
    """Return the mean of each tensor, in the type that it has in the first model."""
    first = read(sources[0])
    total = {name: tensor.astype(np.float64) for name, tensor in first.items()}
    for source in sources[1:]:
        tensors = read(source)
        _require_shapes(first, tensors, sources[0], source)
        for name, tensor in tensors.items():
            total[name] += tensor
    return {name: (total[name] / len(sources)).astype(first[name].dtype) for name in first}


def _require_shapes(first: Tensors, other: Tensors, source: ModelFolder, against: ModelFolder) -> None:
    for name in sorted(first.keys() | other.keys()):
        shapes = [tensors[name].shape if name in tensors else None for tensors in (first, other)]
        if shapes[0] != shapes[1]:
            said = ["no such tensor" if shape is None else str(shape) for shape in shapes]
            raise InvalidInputError(
                f"{name} is {said[0]} in {source.path} and {said[1]} in {against.path}: only models of one "
                "shape can be averaged",
                param="average",
            )


def _require_alike(first: ModelFolder, other: ModelFolder) -> None:
    """Raise InvalidInputError for the first thing but the weights that differs."""
    looks: list[tuple[str, Callable[[ModelFolder], object]]] = [
        ("modules", lambda source: [module.kind for module in source.modules]),
        ("a tokenizer", _tokenizer),
        ("settings of modules", lambda source: [module.config for module in source.modules]),
        ("a config.json", _configuration),
        ("prompts", lambda source: (source.prompts, source.default_prompt_name)),
        ("a space that its vectors are mapped into", lambda source: source.mapped_to),
    ]
    for what, look in looks:
        if look(first) != look(other):
            raise InvalidInputError(
                f"{other.path} has {what} other than {first.path}; only models that differ in their weights "
                "alone can be averaged",
                param="average",
            )


def _tokenizer(source: ModelFolder) -> str:
    tokenizer = Tokenizer.from_file(str(source.tokenizer_file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    said: str = tokenizer.to_str()
    return said


def _configuration(source: ModelFolder) -> dict[str, Any]:
    config = read_json(source.modules[0].folder / "config.json", required=False)
    return {key: value for key, value in config.items() if key not in _UNIMPORTANT}


def _write(tensors: Tensors, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / _WEIGHTS) as file:
        file.write(save(tensors, metadata={"format": "pt"}))
