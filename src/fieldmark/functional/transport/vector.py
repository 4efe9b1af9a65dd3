"""Vector operations that numba's loops do not give: minima of differences, masked additions, an atomic counter.

LLVM keeps the order of floating-point comparisons, so a plain loop over ``min`` stays scalar whatever the flags; these
emit eight lanes at a time, and short rows stay in registers (docs/decisions/0005). Every width is a multiple of
``LANES``, offsets are in elements, and nothing is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

intrinsic: Any = extending.intrinsic  # a call leaves out the first argument, which no type checker knows

LANES = 8
UNROLLED = 8  # rows of up to so many vectors are kept in registers
_I1, _I8, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
_DOUBLE = ir.DoubleType()


class _Differences:
    """``a[offset + k] - b[k]``, eight at a time."""

    def __init__(self, context: Any, builder: Any, signature: Any, a: Any, offset: Any, b: Any) -> None:
        self.builder = builder
        self.lane = context.get_value_type(signature.args[0].dtype)
        self.left = _pointer(context, builder, signature.args[0], a, offset)
        self.right = _pointer(context, builder, signature.args[2], b, _I64(0))

    def at(self, k: Any) -> Any:
        sides = [_load(self.builder, pointer, k, self.lane) for pointer in (self.left, self.right)]
        return self.builder.fsub(*sides)


@intrinsic
def take_row(typing_context, source, start, target, offset, columns, count):
    """Copy ``count`` numbers, a multiple of ``LANES``, as float64 to ``target[offset:]``, and add them to ``columns``.

    Returns their sum and the largest absolute one; NaN shows in the sum.
    """
    pair = types.Tuple([types.float64, types.float64])

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lane = context.get_value_type(source.dtype)
        vector = ir.VectorType(_DOUBLE, LANES)
        origin = _pointer(context, builder, source, args[0], args[1])
        copy = _pointer(context, builder, target, args[2], args[3])
        sums = _pointer(context, builder, columns, args[4], _I64(0))
        zero = ir.Constant(vector, [0.0] * LANES)
        total, largest = (cgutils.alloca_once_value(builder, zero) for _ in range(2))
        builder.store(zero, total)
        builder.store(zero, largest)
        with cgutils.for_range_slice(builder, _I64(0), args[5], _I64(LANES), _I64) as (k, _):
            value = _load(builder, origin, k, lane)
            value = value if lane == _DOUBLE else builder.fpext(value, vector)
            _store(builder, copy, k, value)
            _store(builder, sums, k, builder.fadd(_load(builder, sums, k, _DOUBLE), value))
            builder.store(builder.fadd(builder.load(total), value), total)
            size = builder.select(builder.fcmp_ordered("<", value, zero), builder.fsub(zero, value), value)
            builder.store(_lesser(builder, builder.fsub(zero, size), builder.load(largest)), largest)
        added = builder.load(total)
        for step in (4, 2, 1):
            order = ir.Constant(ir.VectorType(_I32, LANES), [(j + step) % LANES for j in range(LANES)])
            added = builder.fadd(added, builder.shuffle_vector(added, added, order))
        greatest = builder.fsub(_DOUBLE(0.0), _fold(builder, builder.load(largest)))
        return context.make_tuple(builder, pair, [builder.extract_element(added, _I32(0)), greatest])

    return pair(source, types.int64, target, types.int64, columns, types.int64), emit


@intrinsic
def least_tagged(typing_context, a, offset, b, width, tags):
    """Least of ``a[offset + k] - b[k]`` over ``k < width``, with ``k`` in place of its lowest bits ``tags``.

    The place comes with the minimum, without a second look; :func:`tag_of` reads it. ``tags`` is ``2**bits - 1`` and
    at least ``width - 1``; it costs that many of the 52 bits of precision. No difference may be 0 (see ``grow``).
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        differences = _Differences(context, builder, signature, *args[:3])
        integer = _I64 if differences.lane == _DOUBLE else _I32
        keep = _splat(builder, _narrow(builder, builder.not_(args[4]), integer), integer)

        def vector(k: Any) -> Any:
            return _tagged(builder, differences.at(k), k, keep)

        return _fold(builder, _least_vector(builder, vector, differences.lane, args[3]))

    return a.dtype(a, types.int64, b, types.int64, types.int64), emit


@intrinsic
def least_difference(typing_context, a, offset, b, width):
    """Least of ``a[offset + k] - b[k]`` over ``k < width``."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        differences = _Differences(context, builder, signature, *args[:3])
        return _fold(builder, _least_vector(builder, differences.at, differences.lane, args[3]))

    return a.dtype(a, types.int64, b, types.int64), emit


@intrinsic
def place_of(typing_context, a, offset, b, width, value):
    """First ``k < width`` where ``a[offset + k] - b[k]`` is ``value``, which must be among them."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        differences = _Differences(context, builder, signature, *args[:3])
        wanted = _splat(builder, args[4], differences.lane)

        def first(k: Any) -> Any:
            found = builder.bitcast(builder.fcmp_ordered("==", differences.at(k), wanted), _I8)
            lane = builder.zext(builder.cttz(found, _I1(0)), _I64)
            return builder.select(builder.icmp_unsigned("==", found, _I8(0)), args[3], builder.add(k, lane))

        place = cgutils.alloca_once_value(builder, args[3])
        with cgutils.for_range_slice(builder, _I64(0), args[3], _I64(LANES), _I64) as (k, _):
            earliest = builder.load(place)
            here = first(k)
            builder.store(builder.select(builder.icmp_unsigned("<", here, earliest), here, earliest), place)
        return builder.load(place)

    return types.int64(a, types.int64, b, types.int64, a.dtype), emit


@intrinsic
def tagged(typing_context, value, k, tags):
    """A number with ``k`` in place of its lowest bits."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.and_(builder.bitcast(args[0], _I64), builder.not_(args[2]))
        return builder.bitcast(builder.or_(bits, args[1]), _DOUBLE)

    return types.float64(types.float64, types.int64, types.int64), emit


@intrinsic
def tag_of(typing_context, value, tags):
    """The lowest bits of a number."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.and_(builder.bitcast(args[0], _I64), args[1])

    return types.int64(types.float64, types.int64), emit


@intrinsic
def least(typing_context, a, width):
    """Least of ``a[k]`` over ``k < width``."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lane = context.get_value_type(a.dtype)
        pointer = _pointer(context, builder, a, args[0], _I64(0))
        return _fold(builder, _least_vector(builder, lambda k: _load(builder, pointer, k, lane), lane, args[1]))

    return a.dtype(a, types.int64), emit


@intrinsic
def add_where(typing_context, a, bits, value, width):
    """``a[k] += value`` for every ``k < width`` whose bit is set in the words ``bits``."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lane = context.get_value_type(a.dtype)
        target = _pointer(context, builder, a, args[0], _I64(0))
        octets = builder.bitcast(_pointer(context, builder, bits, args[1], _I64(0)), _I8.as_pointer())
        change = _splat(builder, args[2], lane)
        with cgutils.for_range_slice(builder, _I64(0), args[3], _I64(LANES), _I64) as (k, _):
            octet = builder.load(builder.gep(octets, [builder.lshr(k, _I64(3))]))
            mask = builder.bitcast(octet, ir.VectorType(_I1, LANES))
            old = _load(builder, target, k, lane)
            new = builder.select(mask, builder.fadd(old, change), old)
            _store(builder, target, k, new)
        return context.get_dummy_value()

    return types.none(a, bits, a.dtype, types.int64), emit


@intrinsic
def put(typing_context, a, k, value):
    """``a[k] = value``, writing the whole vector around it.

    A vector load right behind a store of one of its elements waits for the cache; behind a store of the same vector
    it does not.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lane = context.get_value_type(a.dtype)
        base = builder.and_(args[1], _I64(-LANES))
        target = _pointer(context, builder, a, args[0], _I64(0))
        bit = builder.shl(_I8(1), builder.trunc(builder.and_(args[1], _I64(LANES - 1)), _I8))
        mask = builder.bitcast(bit, ir.VectorType(_I1, LANES))
        new = builder.select(mask, _splat(builder, args[2], lane), _load(builder, target, base, lane))
        _store(builder, target, base, new)
        return context.get_dummy_value()

    return types.none(a, types.int64, a.dtype), emit


@intrinsic
def item(typing_context, a, k):
    """``a[k]`` without the look whether ``k`` is negative, which would lengthen every step of a climb."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(context, builder, a, args[0], args[1]))

    return a.dtype(a, types.int64), emit


@intrinsic
def fetch_add(typing_context, counters, k, step):
    """Add to ``counters[k]`` and give what it was, as one step that no other thread can come between."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = _pointer(context, builder, counters, args[0], args[1])
        return builder.atomic_rmw("add", at, args[2], "seq_cst")

    return types.int64(counters, types.int64, types.int64), emit


def _least_vector(builder: Any, vector: Callable[[Any], Any], lane: Any, width: Any) -> Any:
    """Eight lanes whose least is the least of all; ``vector`` gives those from a place on."""
    best = cgutils.alloca_once(builder, ir.VectorType(lane, LANES))
    with _by_width(builder, width) as cases:
        for blocks in cases:
            if blocks:
                builder.store(_tree(builder, [vector(_I64(LANES * k)) for k in range(blocks)]), best)
                continue
            builder.store(vector(_I64(0)), best)
            with cgutils.for_range_slice(builder, _I64(LANES), width, _I64(LANES), _I64) as (k, _):
                builder.store(_lesser(builder, vector(k), builder.load(best)), best)
    return builder.load(best)


@contextmanager
def _by_width(builder: Any, width: Any) -> Iterator[Iterator[int]]:
    """Code for each number of vectors up to ``UNROLLED``, and for more (0): the caller emits one at a time."""
    end = builder.append_basic_block("width.end")
    longer = builder.append_basic_block("width.longer")
    switch = builder.switch(width, longer)

    def cases() -> Iterator[int]:
        for blocks in range(1, UNROLLED + 1):
            block = builder.append_basic_block(f"width.{blocks}")
            switch.add_case(_I64(LANES * blocks), block)
            builder.position_at_end(block)
            yield blocks
            builder.branch(end)
        builder.position_at_end(longer)
        yield 0
        builder.branch(end)

    yield cases()
    builder.position_at_end(end)


@intrinsic
def array_at(typing_context, address, kind):
    """Pointer to numbers of a type, from an address."""
    pointer = types.CPointer(kind.dtype)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(pointer))

    return pointer(address, kind), emit


def _tagged(builder: Any, vector: Any, first: Any, keep: Any) -> Any:
    """Each lane with its place, counted from the first, in its lowest bits."""
    integers = keep.type
    lanes = ir.Constant(integers, list(range(LANES)))
    places = builder.add(_splat(builder, _narrow(builder, first, integers.element), integers.element), lanes)
    bits = builder.or_(builder.and_(builder.bitcast(vector, integers), keep), places)
    return builder.bitcast(bits, vector.type)


def _narrow(builder: Any, value: Any, integer: Any) -> Any:
    return value if value.type == integer else builder.trunc(value, integer)


def _tree(builder: Any, vectors: list[Any]) -> Any:
    while len(vectors) > 1:
        pairs = [_lesser(builder, a, b) for a, b in zip(vectors[::2], vectors[1::2], strict=False)]
        vectors = pairs + (vectors[-1:] if len(vectors) % 2 else [])
    return vectors[0] if vectors else None


def _lesser(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", a, b), a, b)


def _fold(builder: Any, vector: Any) -> Any:
    """Least of eight lanes."""
    for step in (4, 2, 1):
        order = ir.Constant(ir.VectorType(_I32, LANES), [(k + step) % LANES for k in range(LANES)])
        vector = _lesser(builder, vector, builder.shuffle_vector(vector, vector, order))
    return builder.extract_element(vector, _I32(0))


def _splat(builder: Any, value: Any, lane: Any) -> Any:
    vector_type = ir.VectorType(lane, LANES)
    one = builder.insert_element(ir.Constant(vector_type, ir.Undefined), value, _I32(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    """Address of an element of a contiguous array."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [offset])


def _load(builder: Any, pointer: Any, index: Any, lane: Any) -> Any:
    at = builder.bitcast(builder.gep(pointer, [index]), ir.VectorType(lane, LANES).as_pointer())
    return builder.load(at, align=_bytes(lane))


def _store(builder: Any, pointer: Any, index: Any, vector: Any) -> None:
    at = builder.bitcast(builder.gep(pointer, [index]), vector.type.as_pointer())
    builder.store(vector, at, align=_bytes(vector.type.element))


def _bytes(lane: Any) -> int:
    return 8 if isinstance(lane, ir.DoubleType) else 4
