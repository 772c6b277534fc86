"""A layer's parameters as a dictionary: torch's ``state_dict`` and ``load_state_dict``.

Keys, strictness, messages and the result's repr are torch's. Two things are better than there.
Values may be anything that NumPy reads: ndarrays (which torch refuses), torch's tensors, lists. And
an error leaves the layer as it was, where torch has by then loaded whatever fitted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pyconv import _arguments
from pyconv._errors import ConvError, ConvTypeError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_VERSION = 1  # of the format, in torch's numbering


class _Keys(NamedTuple):
    missing_keys: list[str]
    unexpected_keys: list[str]


class _IncompatibleKeys(_Keys):
    __slots__ = ()

    def __repr__(self) -> str:
        return super().__repr__() if any(self) else "<All keys matched successfully>"


def dump(parameters: Mapping[str, NDArray[Any]], prefix: str) -> OrderedDict[str, NDArray[Any]]:
    """Return the arrays themselves under prefixed names, with torch's note of the version."""
    entries = OrderedDict((prefix + name, value) for name, value in parameters.items())
    versions = OrderedDict({prefix[:-1]: {"version": _VERSION}})
    entries._metadata = versions  # type: ignore[attr-defined]
    return entries


def load(
    layer: str,
    parameters: Mapping[str, NDArray[Any]],
    state_dict: object,
    *,
    strict: bool,
    assign: bool,
) -> tuple[dict[str, NDArray[Any]], _IncompatibleKeys]:
    """Return what `parameters` become, and which keys did not match. Nothing is modified.

    Parameters
    ----------
    layer : str
        The name of the layer's class, for the message.
    parameters : mapping of str to ndarray
        The present parameters.
    state_dict : mapping of str to array_like
    strict : bool
        Whether a missing or an unknown key is an error.
    assign : bool
        Whether to take the arrays themselves, with their dtype, and not copies in the present one.

    Raises
    ------
    ConvTypeError
        `state_dict` is no mapping.
    ConvError
        With every fault that was found, one to a line.
    """
    if not isinstance(state_dict, Mapping):
        raise ConvTypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
    keys = _IncompatibleKeys(
        [name for name in parameters if name not in state_dict],
        [key for key in state_dict if key not in parameters],
    )
    faults = []
    if strict and keys.missing_keys:
        faults.append(f"Missing key(s) in state_dict: {_quoted(keys.missing_keys)}. ")
    if strict and keys.unexpected_keys:
        faults.append(f"Unexpected key(s) in state_dict: {_quoted(keys.unexpected_keys)}. ")

    loaded = dict(parameters)
    for name in parameters:
        if name in state_dict:
            try:
                loaded[name] = _load_one(name, state_dict[name], parameters[name], assign=assign)
            except (ConvError, ConvTypeError) as error:
                faults.append(str(error))
    if len({value.dtype for value in loaded.values()}) > 1:
        dtypes = ", ".join(f"{name} {value.dtype}" for name, value in loaded.items())
        faults.append(f"the dtypes of all parameters should be the same, got {dtypes}")
    if faults:
        raise ConvError(f"Error(s) in loading state_dict for {layer}:\n\t" + "\n\t".join(faults))
    return loaded, keys


def _load_one(name: str, value: object, present: NDArray[Any], *, assign: bool) -> NDArray[Any]:
    """Return one new parameter: `value` itself, or a copy in the dtype of the `present` one."""
    try:
        found = _arguments.read(value, name)
    except ConvTypeError as error:
        raise ConvTypeError(
            f'While copying the parameter named "{name}", expected an array or array-like object '
            f"from checkpoint but received {type(value)}"
        ) from error
    if found.shape != present.shape:
        raise ConvError(
            f"size mismatch for {name}: copying a param with shape {_torch_size(found.shape)} from "
            f"checkpoint, the shape in current model is {_torch_size(present.shape)}."
        )
    if assign:
        _arguments.float_dtype(found.dtype)
        return _arguments.array(found, name)
    return _arguments.parameter(found, name, present.shape, present.dtype)


def _quoted(keys: Iterable[object]) -> str:
    return ", ".join(f'"{key}"' for key in keys)


def _torch_size(shape: tuple[int, ...]) -> str:
    return f"torch.Size({list(shape)})"
