"""Typed dataclasses out of JSON, with messages that name the wrong field."""

import sys
import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from cifar_resnet.errors import InputError


def parse(kind: Any, value: Any, where: str = "") -> Any:
    """Build a dataclass from what ``json.loads`` returns, or name the wrong field.

    Args:
        kind: a dataclass, or the type hint of one of its fields: another dataclass, a
            tuple, a dict, an optional type, a plain type, or `typing.Any`.
        value: the JSON value.
        where: path of the value, for the message.

    Raises:
        InputError: if a field without a default is missing, or one is unknown or of
            another type.

    Example:
        >>> parse(tuple[float, float], [0.1, 0.2])
        (0.1, 0.2)
        >>> parse(int, "3", "epochs")
        Traceback (most recent call last):
        cifar_resnet.errors.InputError: epochs must be int, not '3'
    """
    here = where.rstrip(".")
    if is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise InputError(f"{here or 'the file'} must be an object, not {value!r}")
        hints = get_type_hints(kind)
        required = {
            f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING
        }
        for name in sorted(required - set(value)):
            raise InputError(f"{where}{name} is missing")
        for name in sorted(set(value) - {f.name for f in fields(kind)}):
            raise InputError(f"{where}{name} is unknown")
        return kind(**{name: parse(hints[name], v, f"{where}{name}.") for name, v in value.items()})
    if kind is Any:
        return value
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if value is None else parse(inner[0], value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{here} must be a list, not {value!r}")
        if inner[-1] is Ellipsis:
            return tuple(parse(inner[0], v, f"{here}[{i}].") for i, v in enumerate(value))
        if len(value) != len(inner):
            raise InputError(f"{here} must have {len(inner)} entries, not {len(value)}")
        pairs = zip(inner, value, strict=True)
        return tuple(parse(k, v, f"{here}[{i}].") for i, (k, v) in enumerate(pairs))
    if origin is dict:
        if not isinstance(value, dict):
            raise InputError(f"{here} must be an object, not {value!r}")
        return {k: parse(inner[1], v, f"{here}.{k}.") for k, v in value.items()}
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{here} must be {kind.__name__}, not {value!r}")
    if kind is float and not abs(value) <= sys.float_info.max:
        raise InputError(f"{here} must be a finite number, not {value!r}")
    return float(value) if isinstance(value, float) else value  # NumPy's are floats, too
