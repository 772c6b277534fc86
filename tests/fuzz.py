"""Calls made of random bytes, led by coverage: refused where the documentation refuses, else right to the bit.

    python tests/fuzz.py [-runs=N] [-max_total_time=SECONDS] [CORPUS]

It needs atheris and ml_dtypes (`pip install '.[fuzz]'`). The options are libFuzzer's. What fails is left in a file,
crash-*: named as the argument, it runs again.

The bytes choose every argument of a function or a layer, mostly one that fits, now and then any. Then they change one
thing, or nothing, and the call is made again, up to five times: what is remembered of calls must not outlive what it
was found from. `defined` says a second time, in few words, what the documentation says: whether there is a result, and
its geometry. So what is refused without need is found as well as what is not refused. Operands hold small integers,
whose sums do not round.
"""

from __future__ import annotations

import operator
import os
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "4")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import atheris
import ml_dtypes
import numpy as np

with atheris.instrument_imports(include=["pyconv"]):
    import pyconv
    from pyconv import _blocks, _execute, _reference
    from pyconv._dispatch import forced
    from pyconv._tiles import Caches

from _layouts import READABLE, gaps, place, poisoned
from _problems import Case

FLOATS = ("float32", "float64", "complex64", "complex128", "float16", "bfloat16")
DTYPES = (*FLOATS, "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
Ints = tuple[int, ...]
MODES = {"zeros": lambda n: 2**62, "replicate": lambda n: 2**62, "reflect": lambda n: n - 1, "circular": lambda n: n}
EDGES = (0, -1, 2**31 - 1, 2**32, 2**63 - 1, 2**63, -(2**63), 2**70)
ODD = (
    None, True, 1.5, "1", "same", "valid", b"same", (), [], {}, {1}, int, np.array(1), np.array([]), np.array([[1]]),
    np.bool(True), (1,), (1.0,), (True, 1), ((1,),), ((1, 2),), ((1, 2), 1), ((1, -1), (0, 1)), (1, 1, 1),
)  # fmt: skip
ODD_DTYPES = (None, ">f4", ml_dtypes.bfloat16, complex, "bool", "g", "O", "abc", 1.5, "f4,f4", [("a", "f4")] * 2)
ODD_OPERANDS: tuple[Callable[[np.ndarray], object], ...] = (
    lambda a: a.tolist(), lambda a: a.astype(object), lambda a: a.astype("U8"), lambda a: a.astype("M8[s]"),
    lambda a: a.astype(np.longdouble), lambda a: a.astype(bool), lambda a: a.astype("i4,f4"), lambda a: [a, 1],
    lambda a: np.ma.array(a, "f4"), lambda a: np.ma.array(a, "f4", mask=a < 2), lambda a: memoryview(a.astype("f4")),
    lambda a: None, lambda a: "abc", lambda a: 1.5, lambda a: np.float32(1), lambda a: object(),
)  # fmt: skip
FUNCTIONS = (pyconv.conv1d, pyconv.conv2d)
LAYERS = (pyconv.Conv1d, pyconv.Conv2d)
LIMIT = 100_000  # elements of an operand, products of a call: more would take too long
CACHES = (_execute.CACHES, Caches(l1=1 << 10, l2=1 << 12))  # with the small one, even these problems fall into blocks

_blocks._FLOPS_PER_THREAD = 1  # and are split among the threads


# --- what the documentation says ------------------------------------------------------------------


class Refused(Exception):  # noqa: N818
    """The call is an error: ConvError or ConvTypeError."""


def demand(condition: object) -> None:
    if not condition:
        raise Refused


def integer(value: Any) -> int:
    demand(not isinstance(value, bool))
    with suppress(TypeError):
        return operator.index(value)
    raise Refused


def is_many(value: object) -> bool:
    return isinstance(value, (tuple, list)) or (isinstance(value, np.ndarray) and value.ndim > 0)


def per_axis(value: Any, axes: int, least: int) -> Ints:
    values = tuple(map(integer, value)) if is_many(value) else (integer(value),)
    demand(len(values) in (1, axes) and min(values) >= least)
    return values * (axes // len(values))


def readable(value: Any) -> np.ndarray:
    demand(isinstance(value, (np.ndarray, list, memoryview)))
    demand(not (isinstance(value, np.ma.MaskedArray) and value.mask.any()))
    with suppress(ValueError):
        return np.asarray(value)
    raise Refused


def settings(axes: int, stride: Any, padding: Any, dilation: Any, groups: Any, mode: Any) -> tuple[Any, ...]:
    strides, dilations = per_axis(stride, axes, 1), per_axis(dilation, axes, 1)
    if isinstance(padding, str):
        demand(padding == "valid" or (padding == "same" and set(strides) == {1}))
    elif is_many(padding) and any(map(is_many, padding)):
        demand(all(is_many(pair) and len(pair) == 2 for pair in padding) and len(padding) in (1, axes))
        padding = tuple(per_axis(pair, 2, 0) for pair in padding) * (axes // len(padding))
    else:
        padding = tuple((n, n) for n in per_axis(padding, axes, 0))
    demand(integer(groups) >= 1 and isinstance(mode, str) and mode in MODES)
    return strides, padding, dilations, integer(groups), mode


def defined(x: Any, weight: Any, bias: Any, axes: int, given: list[Any]) -> Case:
    x, weight, *biases = (readable(value) for value in (x, weight, *([] if bias is None else [bias])))
    strides, padding, dilations, groups, mode = settings(axes, *given)
    held = weight.dtype.kind in "fcV" and x.dtype.kind in "biu" and np.can_cast(x.dtype, weight.dtype)
    demand(weight.dtype.name in DTYPES and (x.dtype.name == weight.dtype.name or held))
    demand(x.ndim in (axes + 1, axes + 2) and weight.ndim == axes + 2)
    demand(weight.shape[0] and weight.shape[0] % groups == 0 and x.shape[-1 - axes] == weight.shape[1] * groups)
    demand(all(b.dtype.name == weight.dtype.name and b.shape == weight.shape[:1] for b in biases))
    names = weight.dtype.name, x.dtype.name
    case = Case(x.shape, weight.shape, bool(biases), strides, padding, dilations, groups, mode, *names)
    p = case.problem
    demand(min(p.ic, p.ih, p.iw, p.kh, p.kw) >= 1)
    for extent, span, *pads in ((p.ih, p.dh * (p.kh - 1), p.pt, p.pb), (p.iw, p.dw * (p.kw - 1), p.pl, p.pr)):
        demand(extent + sum(pads) > span and max(pads) <= MODES[mode](extent))
    return case


def constructed(axes: int, ic: Any, oc: Any, kernel: Any, *rest: Any) -> Ints:
    """Return the shape of a new layer's weight."""
    *given, _bias, mode, device, dtype = rest
    demand(all(len(value) == axes for value in (kernel, *given[:3]) if is_many(value)))
    groups = settings(axes, *given, mode)[3]
    demand(min(integer(ic), integer(oc)) >= 1 and integer(ic) % groups == integer(oc) % groups == 0)
    demand(device in (None, "cpu"))
    with suppress(TypeError, ValueError):
        demand(dtype is None or np.dtype(dtype).name in FLOATS)
        return integer(oc), integer(ic) // groups, *per_axis(kernel, axes, 1)
    raise Refused


def assigned(value: Any, shape: Ints, dtype: np.dtype) -> np.ndarray:
    """Return what a parameter becomes."""
    value = readable(value)
    demand(value.shape == shape and np.can_cast(value.dtype, dtype, "same_kind"))
    return value.astype(dtype)


def loaded(old: dict[str, np.ndarray], entries: Any, strict: bool, assign: bool) -> dict[str, np.ndarray]:
    """Return what a layer's parameters become."""
    demand(isinstance(entries, Mapping) and (not strict or entries.keys() == old.keys()))
    new = {name: readable(entries[name]) if name in entries else old[name] for name in old}
    for name, value in new.items():
        demand(not assign or value.dtype.name in FLOATS)
        new[name] = assigned(value, old[name].shape, value.dtype.name if assign else old[name].dtype)
    demand(len({value.dtype for value in new.values()}) == 1)
    return new


def fits(out: Any, case: Case) -> bool:
    if type(out) is not np.ndarray or (out.shape, out.dtype) != (case.out_shape, case.dtype):
        return False
    addresses = np.sort(np.indices(out.shape).reshape(out.ndim, -1).T @ out.strides)
    return out.flags.writeable and bool(np.all(np.diff(addresses) >= out.itemsize))


def reference(case: Case, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    p = case.problem
    wide = {"i": np.int64, "u": np.int64, "c": np.complex128}.get(np.dtype(case.dtype).kind, np.float64)
    x, weight = x.reshape(p.mb, p.ic, p.ih, p.iw), weight.reshape(p.oc, p.ic // p.g, p.kh, p.kw)
    return _reference.conv(p, x, weight, bias, wide).reshape(case.out_shape).astype(case.dtype)


def answer(question: Callable[..., Any], *arguments: Any) -> Any:
    with suppress(Refused):
        return question(*arguments)


def judge(expected: object, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Make a call that is refused or not, as expected. Any other error ends the program."""
    refusal = result = None
    try:
        result = call(*arguments, **named)
    except (pyconv.ConvError, pyconv.ConvTypeError) as error:
        refusal = error
    assert bool(expected) == (refusal is None), f"{call}, {arguments}, {named}: {refusal or 'not refused'}"
    return result


# --- what the bytes choose ------------------------------------------------------------------------


class Operand(NamedTuple):
    value: Any
    memory: np.ndarray = poisoned(0)  # the bytes that hold it


class Choice(atheris.FuzzedDataProvider):
    """Decisions, a few of the bytes for each. Once these are used up it is always the first."""

    def number(self, low: int, high: int) -> int:
        return self.ConsumeIntInRange(low, high)

    def of(self, choices: Any) -> Any:
        return choices[self.number(0, len(choices) - 1)]

    def mostly(self, usual: Any, others: Any) -> Any:
        return self.of(others) if self.number(0, 31) == 31 else usual

    def integers(self, low: int, high: int, count: int) -> list[int]:
        return [self.mostly(self.number(low, high), EDGES) for _ in range(count)]

    def setting(self, low: int, high: int, axes: int) -> Any:
        values = self.integers(low, high, axes)
        return self.mostly(self.of((values[0], tuple(values), values, np.array(values[0])[()], np.array(values))), ODD)

    def padding(self, axes: int) -> Any:
        pairs = [tuple(self.integers(0, 3, 2)) for _ in range(axes)]
        return self.of((self.setting(0, 3, axes), "same", "valid", tuple(pairs), pairs, np.array(pairs)))

    def setting_at(self, at: int, axes: int) -> Any:
        """Choose stride, padding or dilation."""
        return self.padding(axes) if at == 1 else self.setting(1, 3 - at // 2, axes)

    def operand(self, shape: Ints, dtype: str) -> Operand:
        at = self.number(0, len(shape) - 1)
        n, dtype = shape[at], self.mostly(dtype, DTYPES)
        axis = self.mostly((n,), ((), (0,), (1, n), (n, 1), (2**31,), (2**40,), (max(n - 1, 0),), (n + 1,)))
        shape = (*shape[:at], *axis, *shape[at + 1 :])
        if np.prod(np.array(shape, object)) > LIMIT:
            return Operand(np.broadcast_to(np.ones((), dtype), shape))
        rng = np.random.default_rng(self.number(0, 255))
        values = rng.integers(0 if np.dtype(dtype).kind == "u" else -3, 3, shape, endpoint=True)
        odd = self.mostly(None, ODD_OPERANDS)
        if odd:
            return Operand(odd(abs(values)))
        layout = self.of([name for name in READABLE if (name, dtype) != ("swapped", "bfloat16")])  # NumPy cannot
        return Operand(*place((values * (1 - 2j) if "complex" in dtype else values).astype(dtype), layout, rng))

    def reshape(self, array: np.ndarray) -> None:
        """Give the same array another shape, where its strides allow that."""
        shape = list(array.shape)
        shape.insert(self.number(0, len(shape)), 1) if self.ConsumeBool() else shape.reverse()
        with suppress(AttributeError), warnings.catch_warnings(action="ignore"):
            array.shape = shape

    def out(self, shape: Ints, dtype: str, operands: list[Operand]) -> Operand:
        kind, memory = self.number(0, 2), self.of(operands).memory
        room = memory.nbytes - int(np.prod(shape)) * np.dtype(dtype).itemsize
        if kind == 1:
            return self.operand(shape, dtype)
        if kind == 2 and room >= 0:
            return Operand(np.ndarray(shape, dtype, memory, self.number(0, room)), memory)
        return Operand(None)


def check(choice: Choice, call: Callable[..., Any], operands: list[Operand], axes: int, given: list[Any]) -> Any:
    """Make a call; compare its result with the reference, and the operands with what they were. Return a new result."""
    case = answer(defined, *(each.value for each in operands), axes, given)
    threads = choice.mostly(choice.of((None, 1, 2, 3)), (0, -1, 2**70, "2", True, 1.0, np.int8(2)))
    if case is None:
        return judge(False, call, num_threads=threads)
    p = case.problem
    padded = p.ic * (p.pt + p.ih + p.pb) * (p.pl + p.iw + p.pr)
    if max(p.mb, 1) * max(padded, p.oc * p.oh * p.ow * (p.ic // p.g) * p.kh * p.kw) > LIMIT:
        return judge(False, call, out=0)  # refused when everything but the work is done
    out = choice.out(case.out_shape, case.dtype, [each for each in operands if each.memory.dtype == np.uint8])
    around = partial(gaps, out.value, out.memory) if out.memory.size else bytes
    before = [each.memory.copy() for each in operands], around()
    expected = reference(case, *(None if each.value is None else readable(each.value) for each in operands))
    right = (threads is None or answer(per_axis, threads, 1, 1)) and (out.value is None or fits(out.value, case))
    result = judge(right, call, num_threads=threads, out=out.value)
    if right:
        assert out.value is None or result is out.value
        assert (result.shape, result.dtype) == (case.out_shape, case.dtype), (result.shape, result.dtype, case)
        assert result.tobytes() == expected.tobytes(), f"{case}: {result} is not {expected}"
    assert np.array_equal(around(), before[1]), f"strayed: {case}"
    for each, was in zip(operands, before[0], strict=True):
        if each.memory is out.memory:
            each.memory[...] = was
        assert np.array_equal(each.memory, was), case
    return result if out.value is None else None


def vary(choice: Choice, operands: list[Operand], axes: int, given: list[Any]) -> int:
    """Change something about a call of a function, or nothing; return the number of axes of the next one."""
    kind, at = choice.number(0, 7), choice.number(0, 2)
    value, weight, bias = (operands[each].value for each in (at, 1, 2))
    if kind == 1:
        return 3 - axes
    if kind == 2:
        at = choice.number(0, 4)
        modes = choice.mostly(choice.of(list(MODES)), ODD)
        given[at] = choice.setting_at(at, axes) if at < 3 else choice.of((1, 2, 3, True)) if at == 3 else modes
    elif kind == 3 and isinstance(given[at], (list, np.ndarray)) and len(np.shape(given[at])) == 1:
        with suppress(IndexError):  # the same list, with something else in it
            given[at][0] = choice.number(1, 3)
    elif kind == 7 and isinstance(weight, np.ndarray) and weight.dtype.name in DTYPES:
        operands[2] = Operand(None) if bias is not None else choice.operand((*weight.shape, 1)[:1], weight.dtype.name)
    elif not isinstance(value, np.ndarray) or value.dtype.name not in (*DTYPES, "bool"):
        pass
    elif kind == 4:
        shape, dtype = value.shape, value.dtype.name
        operands[at] = Operand(None)
        del value, weight, bias
        operands[at] = choice.operand(shape or (1,), dtype)  # perhaps where the one before was
    elif kind == 5 and value.flags.writeable:
        value[...] = np.flip(value).copy()
    elif kind == 6:
        choice.reshape(value)
    return axes


def change(choice: Choice, layer: Any, axes: int, given: list[Any]) -> Any:
    """Do something to a layer; return it, or its copy."""
    kind, names = choice.number(0, 9), ("stride", "padding", "dilation")
    parameters = {name: value.copy() for name, value in layer.named_parameters()}
    if kind == 0:
        mode = choice.mostly(choice.of((False, True)), ODD)
        judge(isinstance(mode, bool), layer.train, mode)
    elif kind == 1:
        layer = pickle.loads(pickle.dumps(layer))
    elif kind == 2:
        at = choice.number(0, 2)
        given[at] = choice.setting_at(at, axes)
        setattr(layer, names[at], given[at])
    elif kind == 3:
        with suppress(pyconv.ConvError, pyconv.ConvTypeError, MemoryError):
            layer.plan(choice.mostly(choice.integers(1, 20, axes + 1), ODD), choice.mostly(None, ODD_DTYPES))
    elif kind == 4:
        name = choice.of(("weight", "bias"))
        shape, dtype = layer.weight.shape if name == "weight" else layer.weight.shape[:1], layer.weight.dtype
        value = choice.operand(shape, dtype.name).value
        new = answer(assigned, value, shape, dtype)
        removed = name == "bias" and value is None
        judge(removed or new is not None, setattr, layer, name, value)
        if removed:
            parameters.pop(name, None)
        elif new is not None:
            parameters[name] = new
    elif kind == 5 and layer.training and layer.weight.flags.writeable:
        layer.weight[...] = parameters["weight"][::-1]
        parameters["weight"] = layer.weight.copy()  # where elements share their memory, neither the old nor the new
    elif kind == 6 and layer.training:
        choice.reshape(layer.weight)
        parameters["weight"] = layer.weight
    elif kind >= 7:
        keys = choice.mostly(choice.of((("weight",), ("weight", "bias"), ("bias",))), (("x",), ("weight", 1), ()))
        shapes, dtype = {"weight": layer.weight.shape}, layer.weight.dtype.name
        entries: Any = {key: choice.operand(shapes.get(key, layer.weight.shape[:1]), dtype).value for key in keys}
        entries, strict, assign = choice.mostly(entries, (None, [], "weight")), kind == 9, choice.ConsumeBool()
        new = answer(loaded, parameters, entries, strict, assign)
        judge(new, layer.load_state_dict, entries, strict, assign)
        parameters = new or parameters
    now = dict(layer.named_parameters())
    assert now.keys() == parameters.keys()
    for name, value in now.items():
        assert value.dtype == parameters[name].dtype, name
        assert np.array_equal(value, parameters[name]), name
    assert layer.training or not any(value.flags.writeable for value in layer.parameters())
    assert repr(layer).startswith(type(layer).__name__)
    return layer


class Problem(NamedTuple):
    """What a function and a layer are both given."""

    x: Operand
    axes: int
    ic: int
    oc: int
    groups: int
    kernel: Ints
    dtype: str
    given: list[Any]


def function_calls(choice: Choice, problem: Problem) -> Iterator[Any]:
    x, axes, ic, oc, groups, kernel, dtype, given = problem
    bias = choice.operand((oc,), dtype) if choice.ConsumeBool() else Operand(None)
    operands = [x, choice.operand((oc, ic // groups, *kernel), dtype), bias]
    for _ in range(choice.number(1, 5)):
        values = [each.value for each in operands]
        call = partial(FUNCTIONS[axes - 1], *values, *given[:4], padding_mode=given[4])
        yield check(choice, call, operands, axes, given)
        axes = vary(choice, operands, axes, given)


def layer_calls(choice: Choice, problem: Problem) -> Iterator[Any]:
    x, axes, ic, oc, _, kernel, dtype, given = problem
    channels = [choice.mostly(n, (*ODD, *EDGES)) for n in (ic, oc)]
    last = choice.mostly(None, ("cpu", "gpu", 0)), choice.mostly(dtype if dtype in FLOATS else None, ODD_DTYPES)
    kernels = choice.of((kernel, choice.setting(1, 4, axes)))
    arguments = (*channels, kernels, *given[:4], choice.ConsumeBool(), given[4], *last)
    shape = answer(constructed, axes, *arguments)
    if shape and np.prod(np.array(shape, object)) > LIMIT:
        return
    layer = judge(shape, LAYERS[axes - 1], *arguments, rng=0)
    if not shape:
        return
    assert layer.weight.shape == shape
    for value in layer.parameters():
        value[...] = np.random.default_rng(0).integers(-3, 3, value.shape, endpoint=True)
    for _ in range(choice.number(0, 4)):
        layer = change(choice, layer, axes, given)
        own = (Operand(value, poisoned(0) if value is None else value) for value in (layer.weight, layer.bias))
        yield check(choice, partial(layer, x.value), [x, *own], axes, given)


def one_input(data: bytes) -> None:
    choice = Choice(data)
    axes, groups, dtype = choice.number(1, 2), choice.of((1, 2, 3, 16)), choice.of(DTYPES)
    ic, oc = (choice.mostly(groups * choice.number(1, max(1, 20 // groups)), range(1, 21)) for _ in range(2))
    kernel, pixels = (tuple(choice.number(1, most) for _ in range(axes)) for most in (4, 12))
    x = choice.operand((*choice.of(((1,), (), (0,), (3,))), ic, *pixels), choice.of((dtype, dtype, "uint8", "bool")))
    given = [choice.setting_at(at, axes) for at in range(3)]
    given += [choice.mostly(groups, (*ODD, *EDGES)), choice.mostly(choice.of(list(MODES)), ODD)]
    problem = Problem(x, axes, ic, oc, groups, kernel, dtype, given)
    _execute.CACHES = choice.of(CACHES)
    with forced(choice.of(pyconv.available_isas())):
        results = (function_calls if choice.ConsumeBool() else layer_calls)(choice, problem)
        kept = [(result, result.tobytes()) for result in results if result is not None]
    assert all(result.tobytes() == was for result, was in kept), "a later call wrote where an earlier result is"


if __name__ == "__main__":
    warnings.simplefilter("error")
    atheris.Setup([sys.argv[0], "-len_control=0", "-max_len=400", *sys.argv[1:]], one_input)
    atheris.Fuzz()
