"""The bytes of an `.onnx` file without the onnx package: its metadata, and parts of its graph.

An ONNX model is one protobuf message, `ModelProto`
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), whose field 14 holds key-value pairs.
Only the top level is walked, so a large graph costs nothing; and because protobuf messages
concatenate, appending pairs is appending bytes.
"""

import hashlib
from collections.abc import Iterator, Mapping

from clickseg_infer.errors import ModelError

_METADATA = 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_metadata(content: bytes) -> dict[str, str]:
    """The metadata of a serialised model.

    Raises:
        ModelError: the bytes are not a protobuf message, or end early.
    """
    pairs, view = {}, memoryview(content)
    for number, _, payload, end in fields_of(view):
        if number == _METADATA:
            strings = {n: bytes(view[p:e]) for n, _, p, e in fields_of(view, payload, end)}
            try:
                pairs[strings[1].decode()] = strings[2].decode()
            except (KeyError, UnicodeDecodeError) as error:
                raise ModelError("not an ONNX model, or damaged: unreadable metadata") from error
    return pairs


def digest_without_metadata(content: bytes) -> str:
    """The sha256 (hex) of a serialised model but for its metadata.

    Raises:
        ModelError: the bytes are not a protobuf message, or end early.
    """
    rest, view = hashlib.sha256(), memoryview(content)
    for number, begin, _, end in fields_of(view):
        if number != _METADATA:
            rest.update(view[begin:end])
    return rest.hexdigest()


def drop_metadata(content: bytes) -> bytes:
    """The serialised model without any key-value pair.

    Raises:
        ModelError: the bytes are not a protobuf message, or end early.
    """
    view = memoryview(content)
    return b"".join(view[begin:end] for n, begin, _, end in fields_of(view) if n != _METADATA)


def append_metadata(content: bytes, pairs: Mapping[str, str]) -> bytes:
    """The serialised model with more key-value pairs."""
    parts = [content]
    for key, value in pairs.items():
        pair = bytes_field(1, key.encode()) + bytes_field(2, value.encode())
        parts.append(bytes_field(_METADATA, pair))
    return b"".join(parts)


def fields_of(
    view: memoryview, position: int = 0, stop: int | None = None
) -> Iterator[tuple[int, int, int, int]]:
    """Each field's number, and where it begins, its payload begins, and it ends."""
    stop = len(view) if stop is None else stop
    while position < stop:
        begin = position
        key, position = _varint(view, position, stop)
        number, kind = key >> 3, key & 7
        payload = position
        if kind == _VARINT:
            _, position = _varint(view, position, stop)
        elif kind == _BYTES:
            length, payload = _varint(view, position, stop)
            position = payload + length
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
        else:
            raise ModelError("not an ONNX model, or damaged: unknown wire type")
        if position > stop or number == 0:
            raise ModelError("not an ONNX model, or truncated")
        yield number, begin, payload, position


def _varint(view: memoryview, position: int, stop: int) -> tuple[int, int]:
    value = shift = 0
    while position < stop and shift < 64:
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ModelError("not an ONNX model, or truncated")


def bytes_field(number: int, payload: bytes) -> bytes:
    """One field of a message that holds bytes, a string or another message."""
    return _to_varint(number << 3 | _BYTES) + _to_varint(len(payload)) + payload


def _to_varint(value: int) -> bytes:
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
