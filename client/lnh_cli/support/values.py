"""Takes the plain values of a command line as they are; whatever is not plain is left to typer, with its words for it.

typer decodes each option by `pydantic`, also one that is not given, and importing that takes longer than most commands
do all that they do. What is not given, a text, a whole number or a path needs no such decoder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_NUMBERS: Final[dict[type, re.Pattern[str]]] = {
    int: re.compile(r"-?[0-9]{1,15}"),
    float: re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?"),
}
_OTHERWISE: Final = object()


def taking_plain(parameters: list[Any]) -> list[Any]:
    """Have these parameters of a command take plain values as they are, and return them."""
    for parameter in parameters:
        decoder = getattr(parameter, "get_runtime_param", None)  # before it had `pydantic`, typer had none
        if decoder is not None and "get_runtime_param" not in vars(parameter):
            parameter.get_runtime_param = lambda decoder=decoder: _Plain(decoder)
    return parameters


class _Plain:
    """Stands for typer's decoder of a parameter.

    Args:
        decoder: makes it.
    """

    def __init__(self, decoder: Callable[[], Any]) -> None:
        self._decoder: Final = decoder

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value that the parameter takes; raises typer's errors."""
        taken = _taken(value, param)
        return self._decoder().coerce(value, param=param, ctx=ctx) if taken is _OTHERWISE else taken


def _taken(value: Any, parameter: Any) -> Any:
    several = parameter.multiple or parameter.nargs != 1
    if value is None:
        return () if several else None
    annotation = parameter.type_descriptor.annotation
    if several:
        texts = annotation == list[str] and isinstance(value, tuple | list) and all(type(one) is str for one in value)
        return list(value) if texts else _OTHERWISE
    if value is parameter.default and type(value) is annotation:
        return value
    if type(value) is not str or parameter.type_descriptor.parameter_info.parser is not None:
        return _OTHERWISE
    if annotation is str:
        return value
    if annotation in _NUMBERS:
        return _number(value, annotation, parameter)
    return _path(value, parameter.type_descriptor.parameter_info) if annotation is Path else _OTHERWISE


def _number(text: str, kind: type, parameter: Any) -> Any:
    if _NUMBERS[kind].fullmatch(text) is None:
        return _OTHERWISE
    number = kind(text)
    fits = (parameter.min is None or parameter.min <= number) and (parameter.max is None or number <= parameter.max)
    return number if fits else _OTHERWISE


def _path(text: str, asked: Any) -> Any:
    """Make a path, of which nothing is asked but that it can be read if it is there."""
    if "\0" in text or asked.exists or asked.writable or asked.resolve_path:
        return _OTHERWISE
    if not (asked.file_okay and asked.dir_okay):
        return _OTHERWISE
    is_there = os.path.exists(text)  # noqa: PTH110  # of a name that is too long a `Path` raises, and typer does not
    return Path(text) if os.access(text, os.R_OK) or not is_there else _OTHERWISE
