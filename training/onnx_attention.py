"""Let the attention operator split the heads itself, in place of four Transposes around each."""

from __future__ import annotations

from onnx import GraphProto, ModelProto, NodeProto, helper

from training.onnx_edit import attribute, consumers, producers, replace_nodes

_SWAP = [0, 2, 1, 3]  # (batch, sequence, heads, size) <-> (batch, heads, sequence, size)
_KEPT = ("is_causal", "scale", "softcap", "softmax_precision")


def split_heads_inside(model: ModelProto) -> None:
    """Rewrite in place each Attention between Transposes to take (batch, sequence, width) as it comes.

    The shapes are those that the exporter wrote down; an Attention without them stays as it is.
    """
    rewriting = _Rewriting(model.graph)
    nodes = [rewriting.fused(node) or node for node in model.graph.node]
    joins = rewriting.joins
    replace_nodes(
        model.graph, [node for node in nodes if node.op_type == "Attention" or node.output[0] not in joins]
    )


class _Rewriting:
    def __init__(self, graph: GraphProto) -> None:
        self._made_by = producers(graph)
        self._read_by = consumers(graph)
        self._sizes = {
            value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]  # 0: unknown
            for value in graph.value_info
        }
        self.joins: set[str] = set()  # what the rewritten nodes make: the Reshapes that did go

    def fused(self, node: NodeProto) -> NodeProto | None:
        """Return the Attention that takes and gives whole states; None where that is not possible."""
        if node.op_type != "Attention" or node.domain or len(node.output) != 1 or len(node.input) > 4:
            return None
        sources = [self._before_split(name) for name in node.input[:3]]
        joined = self._after_join(node.output[0])
        if joined is None or None in sources:
            return None
        self.joins.add(joined)
        queries, keys = (self._sizes[name][1] for name in node.input[:2])
        inputs = [*(name for name in sources if name), *node.input[3:]]
        settings = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        kept = {name: settings[name] for name in _KEPT if name in settings}
        return helper.make_node(
            "Attention", inputs, [joined], node.name, q_num_heads=queries, kv_num_heads=keys, **kept
        )

    def _before_split(self, name: str) -> str | None:
        """Return the (batch, sequence, width) value behind a Reshape and a Transpose into heads."""
        split = self._made_by.get(name)
        if split is None or split.op_type != "Transpose" or list(attribute(split, "perm", [])) != _SWAP:
            return None
        reshape = self._made_by.get(split.input[0])
        if reshape is None or reshape.op_type != "Reshape":
            return None
        whole, heads = self._sizes.get(reshape.input[0], []), self._sizes.get(name, [])
        known = len(whole) == 3 and len(heads) == 4 and 0 not in (heads[1], heads[3])
        return reshape.input[0] if known and whole[2] == heads[1] * heads[3] else None

    def _after_join(self, name: str) -> str | None:
        """Return the (batch, sequence, width) value that only a Transpose and a Reshape are before."""
        join = self._only_reader(name, "Transpose")
        if join is None or list(attribute(join, "perm", [])) != _SWAP:
            return None
        reshape = self._only_reader(join.output[0], "Reshape")
        if reshape is None:
            return None
        whole, heads = self._sizes.get(reshape.output[0], []), self._sizes.get(name, [])
        known = len(whole) == 3 and len(heads) == 4 and whole[2] == heads[1] * heads[3] != 0
        return reshape.output[0] if known else None

    def _only_reader(self, name: str, kind: str) -> NodeProto | None:
        readers = self._read_by.get(name, [])
        return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None
