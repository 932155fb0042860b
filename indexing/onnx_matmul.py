"""A matrix product of bytes on the processor's own instructions for it (VNNI, AMX), through ONNX Runtime.

The model is one MatMulInteger node whose right side is a constant, so that it is packed once. It is written
here as the protocol buffer that it is (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto): the package
that usually does this is large, and needed for nothing else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

ZERO = 128
"""What stands for 0 in the left side: ``uint8`` values are counted from it."""

_UINT8, _INT8, _INT32 = 2, 3, 6  # TensorProto.DataType
_IR_VERSION, _OPSET = 8, 13

Multiply = Callable[[NDArray[np.uint8]], NDArray[np.int32]]


def byte_product(right: NDArray[np.int8]) -> Multiply:
    """Return a function from ``left`` ``(n, dim)`` to ``(left - ZERO) @ right``, int32 ``(n, m)``, exact.

    ``right`` is int8 ``(dim, m)``. The function works on the thread that calls it, and on several at once.
    """
    import onnxruntime  # here, as most processes that import this package never need it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(_model(right), options, providers=["CPUExecutionProvider"])

    def multiply(left: NDArray[np.uint8]) -> NDArray[np.int32]:
        product: NDArray[np.int32] = session.run(None, {"left": left})[0]
        return product

    return multiply


@functools.cache
def byte_product_is_exact() -> bool:
    """Whether this processor multiplies the largest bytes rightly: those before VNNI add up in 16 bits."""
    left = np.full((64, 256), 255, np.uint8)
    right = np.full((256, 64), 127, np.int8)
    return bool((byte_product(right)(left) == 256 * 127 * (255 - ZERO)).all())


def _model(right: NDArray[np.int8]) -> bytes:
    dimension, width = right.shape
    zero = _tensor("zero", _UINT8, (), bytes([ZERO]))
    constant = _tensor("right", _INT8, (dimension, width), np.ascontiguousarray(right).tobytes())
    node = b"".join(_bytes(1, name) for name in (b"left", b"right", b"zero"))
    node += _bytes(2, b"product") + _bytes(4, b"MatMulInteger")
    graph = _bytes(1, node) + _bytes(2, b"product") + _bytes(5, zero) + _bytes(5, constant)
    graph += _bytes(11, _value("left", _UINT8, dimension)) + _bytes(12, _value("product", _INT32, width))
    return _number(1, _IR_VERSION) + _bytes(7, graph) + _bytes(8, _number(2, _OPSET))


def _tensor(name: str, kind: int, shape: tuple[int, ...], raw: bytes) -> bytes:
    dims = b"".join(_number(1, size) for size in shape)
    return dims + _number(2, kind) + _bytes(8, name.encode()) + _bytes(9, raw)


def _value(name: str, kind: int, width: int) -> bytes:
    """A matrix of any height."""
    shape = _bytes(1, _bytes(2, b"n")) + _bytes(1, _number(1, width))
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _number(1, kind) + _bytes(2, shape)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Seven bits to a byte, the lowest first; all but the last have the highest bit set."""
    low = bytearray()
    while value > 0x7F:
        low.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*low, value])
