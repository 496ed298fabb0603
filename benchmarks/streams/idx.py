"""idx files of unsigned bytes, as the MNIST family uses them."""

import gzip
import struct

import numpy


def read_idx(path):
    with gzip.open(path) as file:
        _, kind, dimensions = struct.unpack(">HBB", file.read(4))
        assert kind == 8, f"{path} does not hold unsigned bytes"
        shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
        return numpy.frombuffer(file.read(), numpy.uint8).reshape(shape)


def write_idx(path, array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    # mtime 0: the same bytes on every run.
    path.write_bytes(gzip.compress(header + array.astype(numpy.uint8).tobytes(), compresslevel=6, mtime=0))
