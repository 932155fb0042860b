"""Turn a model folder into one for serving: an ONNX graph, a static table; changed on the way as asked.

Every export is opened and compared with its source on texts of many lengths and scripts; a copy
that gives other vectors is not kept. The folder appears whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from embedsvc.encoder import Encoder, load_encoder, locate_model
from embedsvc.encoders.onnx_runtime import OnnxRuntime
from embedsvc.encoders.static_table import read_table
from embedsvc.errors import InvalidInputError, MissingExtraError
from embedsvc.model_folder import ModelFolder, Precision, open_model_folder
from embedsvc.self_check import REFERENCE_FILE, write_reference
from embedsvc.textfiles import write_json
from training.affine import append_affine, cut
from training.averaging import average_models
from training.card import CardOptions, Made, write_card
from training.model_copy import (
    copy_plain,
    copy_weights,
    is_adapter,
    new_folder,
    weight_files,
    write_static_copy,
)
from training.parity import Parity, check_graph_vectors, check_parity, trusted_encoder
from training.static_export import TableDtype
from training.trimming import Trim, trim_vocabulary

Stage = Callable[[ModelFolder, Path], str]  # writes the folder changed, and says what it did
_TORCH_EXPORT = ("torch", "sentence_transformers", "onnx", "onnxscript")


@dataclass(frozen=True)
class ExportOptions:
    """What becomes of a model on the way, and what is written.

    dtype: of a static model's table. onnx: the graphs of a transformer, "float32" (default), "int8";
    pooled: they give ``sentence_embedding`` too. torch: the transformer's torch weights, to train on.
    base: of a model that is an adapter, in place of the one that it names. average: more models, whose
    weights count as much as the first one's. checkpoints: each of them is a run, and stands for the last
    checkpoints that it kept (`checkpoint_models`). trim: a smaller vocabulary. steps: maps that are fitted on
    texts, in this order (see `fitted_steps`). dimensions: fewer, of a Matryoshka model; force_dimensions:
    of any. card: what it says. overwrite: replace a model folder.
    """

    dtype: TableDtype = "float32"
    onnx: Sequence[Precision] | None = None
    pooled: bool = False
    torch: bool = False
    base: str | Path | None = None
    average: Sequence[str | Path] = ()
    checkpoints: bool = False
    trim: Trim | None = None
    steps: Sequence[Stage] = ()
    dimensions: int | None = None
    force_dimensions: bool = False
    card: CardOptions = field(default_factory=CardOptions)
    overwrite: bool = False

    @property
    def graphs(self) -> Sequence[Precision]:
        """The graphs to write of a transformer, float32 first."""
        wanted = self.onnx if self.onnx is not None else () if self.torch else ("float32",)
        return sorted(set(wanted))


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how far its unit vectors are from the source's on the probe texts."""

    path: Path
    kind: str  # "onnx float32", "onnx float32, int8", "torch", "static float32" or "static int8" …
    dimension: int
    bytes: int
    parities: dict[str, Parity]  # by kind: float32 and int8 graphs; otherwise one
    notes: tuple[str, ...] = ()  # what was changed on the way

    @property
    def parity(self) -> Parity:
        """The first: that of the float32 graph where both were written."""
        return next(iter(self.parities.values()))


def export_model(model: str | Path | None, out: Path, options: ExportOptions | None = None) -> ExportReport:
    """Export a model for serving: a static one as another table, any other as ONNX graphs.

    model is a folder, a hub id, or None for the bundled one (with options.average: for no other model).
    A transformer without torch weights gives the float32 graph that it has. Raises InvalidInputError,
    MissingExtraError, or ModelError when a copy differs from its source; nothing is left behind then.
    """
    options = options or ExportOptions()
    named = [*([model] if model is not None or not options.average else []), *options.average]
    paths = [locate_model(one) for one in named]
    with new_folder(out, paths, overwrite=options.overwrite) as folder:
        notes: list[str] = []
        sources = [_opened(path, folder.parent / f"model{i}", options, notes) for i, path in enumerate(paths)]
        prepared = source = sources[0]
        if options.average or options.checkpoints:
            place = _empty(folder.parent / "mean" / source.path.name)
            notes.append(_average(sources, place, options))
            prepared = open_model_folder(place)
        for number, stage in enumerate(_stages(options)):
            place = _empty(folder.parent / str(number) / source.path.name)
            notes.append(stage(prepared, place))
            prepared = open_model_folder(place)
        write = _write_static if prepared.is_static else _write_transformer
        kind, dimension, parities = write(prepared, folder, options)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        write_card(source, folder, Made(kind, dimension, size, parities, notes), options.card)
        return ExportReport(out, kind, dimension, size, parities, tuple(notes))


def _opened(path: Path, work: Path, options: ExportOptions, notes: list[str]) -> ModelFolder:
    """Open a model whose options fit; one that is an adapter is merged into its base first."""
    if is_adapter(path):
        _require_packages("torch", "sentence_transformers")
        from training.adapters import merge_adapter

        notes.append(merge_adapter(path, options.base, _empty(work / path.name)))
        path = work / path.name
    source = open_model_folder(path)
    _check(source, options)
    return source


def _average(sources: Sequence[ModelFolder], out: Path, options: ExportOptions) -> str:
    """Write the mean of the models, or of the checkpoints of the runs that they are; say of what."""
    if not options.checkpoints:
        average_models(sources, out)
        return f"the mean of {len(sources)} models: {', '.join(str(source.path) for source in sources)}"
    _require_packages("torch")
    from training.checkpoint_models import checkpoint_models

    parts: list[ModelFolder] = []
    told: list[str] = []
    for number, source in enumerate(sources):
        by_step = checkpoint_models(source.path, out.parent / f"checkpoints{number}")
        parts += by_step.values()
        told.append(f"{source.path} after {', '.join(map(str, by_step))} steps")
    average_models(parts, out)
    return f"the mean of {len(parts)} checkpoints: {'; '.join(told)}"


def _empty(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _check(source: ModelFolder, options: ExportOptions) -> None:
    """Raise InvalidInputError for options of another kind of model, and MissingExtraError."""
    if source.is_static:
        for name in ("onnx", "torch", "pooled"):
            if getattr(options, name):
                raise InvalidInputError(
                    f"{name} is for transformers; {source.path} is static: use dtype", param=name
                )
        return
    if options.dtype != "float32":
        raise InvalidInputError(
            f"dtype {options.dtype!r} is for static models; this one is a transformer: use onnx",
            param="dtype",
        )
    wrong = next((name for name in options.graphs if name not in ("float32", "int8")), None)
    if wrong is not None or not (options.graphs or options.torch):
        raise InvalidInputError(f"onnx = {wrong!r}; choose float32, int8 or both", param="onnx")
    has_weights = bool(weight_files(source))
    if options.torch and not has_weights:
        raise InvalidInputError(f"{source.path} has no torch weights to keep", param="torch")
    _require_packages(*(_TORCH_EXPORT if has_weights else ("onnx",)))


def _stages(options: ExportOptions) -> list[Stage]:
    stages: list[Stage] = []
    if (trim := options.trim) is not None:
        stages.append(lambda source, out: str(trim_vocabulary(source, out, trim)))
    stages += options.steps
    if (dimensions := options.dimensions) is not None:
        force = options.force_dimensions
        stages.append(lambda source, out: _cut(source, out, dimensions, force=force))
    return stages


def _cut(source: ModelFolder, out: Path, dimensions: int, *, force: bool) -> str:
    encoder = trusted_encoder(source)
    encoder.check_dimensions(dimensions, force=force)
    kept = [size for size in source.matryoshka_dimensions if size <= dimensions]
    append_affine(source, out, cut(encoder.dimension, dimensions), unit=False, matryoshka=kept)
    return f"cut to its first {dimensions} of {encoder.dimension} dimensions"


def _write_static(
    source: ModelFolder, folder: Path, options: ExportOptions
) -> tuple[str, int, dict[str, Parity]]:
    """Write a static model as float32, which sentence-transformers opens too, int8 or int4."""
    write_static_copy(source, folder, read_table(source.modules[0].folder), dtype=options.dtype)
    copy = load_encoder(folder, runtime="static")
    parity = check_parity(trusted_encoder(source), copy, lossless=options.dtype == "float32")
    kind = f"static {options.dtype}"
    return kind, copy.dimension, {kind: parity}


def _write_transformer(
    source: ModelFolder, folder: Path, options: ExportOptions
) -> tuple[str, int, dict[str, Parity]]:
    """Write a sentence-transformers folder with ONNX graphs, beside or in place of torch weights."""
    expected = trusted_encoder(source)
    copy_plain(source, folder)
    parities: dict[str, Parity] = {}
    if options.graphs:
        _write_graphs(source, folder, options.graphs)
        opened = open_model_folder(folder)
        for precision in options.graphs:
            if options.pooled:
                _add_head(opened, precision)
            found = Encoder(opened, OnnxRuntime(opened, precision=precision))
            parities[precision] = check_parity(expected, found, lossless=precision == "float32")
        records = {name: asdict(parity) for name, parity in parities.items()}
        write_json(folder / "evaluation" / "onnx.json", records)
    if options.torch:
        copy_weights(source, folder)
        found = load_encoder(folder, runtime="torch", device="cpu")
        parities["torch"] = check_parity(expected, found, lossless=True)
    write_reference(expected, folder / REFERENCE_FILE)
    names = ["onnx " + ", ".join(options.graphs)] if options.graphs else []
    return ", ".join([*names, *(["torch"] if options.torch else [])]), expected.dimension, parities


def _write_graphs(source: ModelFolder, folder: Path, wanted: Sequence[Precision]) -> None:
    """Write the wanted graphs; the float32 one is exported with torch, or the source's own."""
    import shutil

    plain = folder / "onnx" / "model.onnx"
    given = None if weight_files(source) else source.onnx_file
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


def _add_head(folder: ModelFolder, precision: Precision) -> None:
    """Put the whole chain into a graph; raise ModelError when it gives other vectors than our runtime."""
    from training.onnx_head import VECTORS, add_head

    path = folder.onnx_files[precision]
    add_head(path, folder)
    ours = Encoder(folder, OnnxRuntime(folder, precision=precision))
    check_graph_vectors(path, ours, VECTORS)


def _require_packages(*names: str) -> None:
    from importlib.util import find_spec

    if any(find_spec(name) is None for name in names):
        raise MissingExtraError("exporting to ONNX", "train")
