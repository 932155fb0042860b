"""Turn a model folder into one that is served without torch: an ONNX graph, or another static table.

Every export is opened and compared with its source on texts of many lengths and scripts; a copy
that gives other vectors is not kept. The folder appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from embedsvc.encoder import Encoder, load_encoder, locate_model
from embedsvc.encoders.onnx_runtime import OnnxRuntime
from embedsvc.encoders.static_table import read_table
from embedsvc.errors import InvalidInputError, MissingExtraError
from embedsvc.model_folder import ModelFolder, Precision, open_model_folder, read_json
from embedsvc.self_check import REFERENCE_FILE, write_reference
from embedsvc.textfiles import write_json
from training.parity import Parity, check_parity
from training.static_export import TableDtype, write_static_folder

# What another server or library may look for beside the modules' own folders. Never the weights.
_KEPT_FILES = (
    *("README.md", "LICENSE", "LICENSE.txt", "NOTICE"),
    *("config.json", "config_sentence_transformers.json", "modules.json", "sentence_bert_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt"),
    *("sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "chat_template.jinja"),
)

_TORCH_EXPORT = ("torch", "sentence_transformers", "onnx", "onnxscript")


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how far its unit vectors are from the source's on the probe texts."""

    path: Path
    kind: str  # "onnx float32", "onnx int8", "onnx float32, int8", "static float32", "static int8", …
    dimension: int
    bytes: int
    parity: Parity  # of the float32 graph where both were written
    int8_parity: Parity | None = None  # of the int8 graph


def export_model(
    model: str | Path | None,
    out: Path,
    *,
    dtype: TableDtype = "float32",
    onnx: Sequence[Precision] | None = None,
    dimensions: int | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Export a model for serving: a static one as another table, any other as ONNX graphs.

    model is a folder, a hub id, or None for the bundled one. dtype "int8" and dimensions (fewer,
    Matryoshka) are for static models; onnx says which graphs to write of a transformer: "float32"
    (default), "int8". overwrite replaces an existing model folder. Raises InvalidInputError,
    MissingExtraError, or ModelError when a copy differs from its source; nothing is left behind then.
    """
    if open_model_folder(locate_model(model)).is_static:
        if onnx is not None:
            raise InvalidInputError("onnx is for transformers; this model is static: use dtype", param="onnx")
        return export_static(model, out, dtype=dtype, dimensions=dimensions, overwrite=overwrite)
    if dtype != "float32":
        raise InvalidInputError(
            f"dtype {dtype!r} is for static models; this one is a transformer: use onnx", param="dtype"
        )
    if dimensions is not None:
        raise InvalidInputError(
            "a transformer keeps all its dimensions; ask for fewer when encoding", param="dimensions"
        )
    return export_onnx(model, out, onnx=onnx or ("float32",), overwrite=overwrite)


def export_onnx(
    model: str | Path | None,
    out: Path,
    *,
    onnx: Sequence[Precision] = ("float32",),
    overwrite: bool = False,
) -> ExportReport:
    """Write a sentence-transformers folder with ONNX graphs in place of torch weights.

    A folder without torch weights gives the float32 graph that it has.
    """
    source = open_model_folder(locate_model(model))
    if source.is_static:
        raise InvalidInputError(f"{source.path} is a static model; it needs no ONNX", param="model")
    wrong = next((precision for precision in onnx if precision not in ("float32", "int8")), None)
    if wrong is not None or not onnx:
        raise InvalidInputError(f"onnx = {wrong!r}; choose float32, int8 or both", param="onnx")
    given = None if _has_torch_weights(source) else source.onnx_file
    _require_packages(*(_TORCH_EXPORT if given is None else ("onnx",)))
    with _new_folder(out, source.path, overwrite=overwrite) as folder:
        _copy_without_weights(source, folder)
        _write_graphs(source, folder, given, onnx)
        opened = open_model_folder(folder)
        expected = load_encoder(source.path, runtime="onnx" if given else "torch", device="cpu")
        parities = {
            precision: check_parity(
                expected,
                Encoder(opened, OnnxRuntime(opened, precision=precision)),
                lossless=precision == "float32",
            )
            for precision in sorted(set(onnx))
        }
        write_reference(expected, folder / REFERENCE_FILE)
        write_json(
            folder / "evaluation" / "onnx.json", {name: asdict(found) for name, found in parities.items()}
        )
        kind = f"onnx {', '.join(parities)}"
        report = _report(folder, out, kind, expected.dimension, next(iter(parities.values())))
        return replace(report, int8_parity=parities.get("int8"))


def _has_torch_weights(source: ModelFolder) -> bool:
    first = source.modules[0].folder
    return any(path for name in ("*.safetensors", "pytorch_model*.bin") for path in first.glob(name))


def _write_graphs(source: ModelFolder, folder: Path, given: Path | None, wanted: Sequence[Precision]) -> None:
    """Write the wanted graphs; the float32 one is ``given`` or exported with torch."""
    plain = folder / "onnx" / "model.onnx"
    if given is None:
        from training.onnx_graph import write_graph

        write_graph(source, plain)
    else:
        plain.parent.mkdir()
        for path in given.parent.glob(f"{given.name}*"):  # its weights may lie beside it
            shutil.copyfile(path, plain.parent / path.name)
    if "int8" in wanted:
        from training.onnx_calibration import write_int8

        write_int8(plain, plain.with_name("model_int8.onnx"), source)
    if "float32" not in wanted:
        for path in plain.parent.glob(f"{plain.name}*"):
            path.unlink()


def export_static(
    model: str | Path | None,
    out: Path,
    *,
    dtype: TableDtype = "float32",
    dimensions: int | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Write a static model as float32, which sentence-transformers opens too, int8 or int4; maybe shorter."""
    source = load_encoder(locate_model(model), runtime="static")
    source.check_dimensions(dimensions)
    size = dimensions or source.dimension
    with _new_folder(out, source.folder.path, overwrite=overwrite) as folder:
        card = source.folder.path / "README.md"
        write_static_folder(
            folder,
            read_table(source.folder.modules[0].folder)[:, :size],
            source.folder.tokenizer_file.read_text(encoding="utf-8"),
            matryoshka_dimensions=[d for d in source.folder.matryoshka_dimensions if d <= size],
            dtype=dtype,
            card=card.read_text(encoding="utf-8") if card.is_file() else _card(source.folder),
        )
        _keep_prompts(source.folder, folder)
        copy = load_encoder(folder, runtime="static")
        parity = check_parity(source, copy, lossless=dtype == "float32")
        return _report(folder, out, f"static {dtype}", size, parity)


def _require_packages(*names: str) -> None:
    from importlib.util import find_spec

    if any(find_spec(name) is None for name in names):
        raise MissingExtraError("exporting to ONNX", "train")


@contextlib.contextmanager
def _new_folder(out: Path, source: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary folder beside ``out`` that takes its place when the block succeeds."""
    out = out.absolute()
    _require_replaceable(out, source, overwrite=overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        fresh, old = work / "new", work / "old"
        fresh.mkdir()
        yield fresh
        for path in fresh.rglob("*"):  # safetensors writes files that only their owner can read
            path.chmod(path.stat().st_mode | fresh.stat().st_mode & (0o777 if path.is_dir() else 0o666))
        if out.exists():
            out.rename(old)
        fresh.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _require_replaceable(out: Path, source: Path, *, overwrite: bool) -> None:
    here, there = out.resolve(), source.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise InvalidInputError(
            f"{out} overlaps the model's own folder {source}; choose another", param="out"
        )
    if out.exists() and not out.is_dir():
        raise InvalidInputError(f"{out} exists and is not a folder", param="out")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not overwrite:
        raise InvalidInputError(f"{out} is not empty; overwrite it with --overwrite", param="out")
    if not (out / "modules.json").is_file():
        raise InvalidInputError(f"{out} is not a model folder; it will not be overwritten", param="out")


def _copy_without_weights(source: ModelFolder, folder: Path) -> None:
    """Copy configs, tokenizer and the small modules; write modules.json where the source has none."""
    first = source.modules[0].folder
    for origin in {source.path, first}:
        target = folder / origin.relative_to(source.path)
        target.mkdir(parents=True, exist_ok=True)
        for name in _KEPT_FILES:
            if (origin / name).is_file():
                shutil.copyfile(origin / name, target / name)
    if (source.path / "modules.json").is_file():
        for module in source.modules[1:]:
            if module.folder.is_dir() and module.folder not in (source.path, first):
                shutil.copytree(module.folder, folder / module.folder.relative_to(source.path))
    else:
        _write_modules(source, folder)
    if not (folder / "README.md").exists():
        (folder / "README.md").write_text(_card(source), encoding="utf-8")


def _write_modules(source: ModelFolder, folder: Path) -> None:
    pooling = source.modules[1].config | {
        "embedding_dimension": read_json(source.path / "config.json")["hidden_size"]
    }
    prefix = "sentence_transformers.models"
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{prefix}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{prefix}.Pooling"},
    ]
    (folder / "1_Pooling").mkdir()
    write_json(folder / "1_Pooling" / "config.json", pooling)
    write_json(folder / "modules.json", modules)


def _keep_prompts(source: ModelFolder, folder: Path) -> None:
    path = folder / "config_sentence_transformers.json"
    write_json(
        path, read_json(path) | {"prompts": source.prompts, "default_prompt_name": source.default_prompt_name}
    )


def _card(source: ModelFolder) -> str:
    return f"---\ntags:\n- sentence-transformers\n---\n\n# {source.name}\n\nExported by embedsvc.\n"


def _report(folder: Path, out: Path, kind: str, dimension: int, parity: Parity) -> ExportReport:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return ExportReport(out, kind, dimension, size, parity)
