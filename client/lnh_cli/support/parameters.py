"""Options for the parameters of mechanisms, made from the table of mechanisms: a row there is an option here."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from lnh_cli.support import files, terminal
from lnh_cli.support.options import ObjectOptions
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism, Use, parameters_of
from lnh_common.pkcs11.parameters import Choices, Parameter, ParameterKind

if TYPE_CHECKING:
    from lnh_common.messages.base import Message

_PANEL: Final = "Parameters of the mechanism"
_TYPES: Final[dict[ParameterKind, Any]] = {
    ParameterKind.BYTES: str | None,
    ParameterKind.NAME: str | None,
    ParameterKind.NUMBER: int | None,
    ParameterKind.FLAG: bool | None,
}
_METAVARS: Final = {ParameterKind.BYTES: "HEX", ParameterKind.NAME: "NAME", ParameterKind.NUMBER: "NUMBER"}


@dataclasses.dataclass(kw_only=True)
class MechanismOptions(ObjectOptions):
    """Options of a verb that uses a key: the mechanism, and (`mechanism_options`) the parameters of all that fit."""

    mechanism: files.MechanismOption = None

    def chosen(self, use: Use) -> Mechanism | None:
        """Find the mechanism that was named, for this use; None where none was; a usage error otherwise."""
        return files.mechanism(self.mechanism, use) if self.mechanism else None

    def parameters(self, mechanism: Mechanism) -> Message | None:
        """Make the parameters that were given; None for none; one that the mechanism lacks is a usage error."""
        known = {each.name: each for each in parameters_of(mechanism)}
        given = {name: value for name in _names(type(self)) if (value := getattr(self, name)) is not None}
        for name in given:
            if name not in known:
                takes = ", ".join(map(_option, known)) or "no parameters"
                terminal.refuse(f"{mechanism.name} takes no {_option(name)}", f"it takes {takes}", terminal.USAGE)
        for name, each in known.items():
            if each.is_required and name not in given:
                terminal.refuse(f"{mechanism.name} needs {_option(name)}", f"{each.range}: {each.help}", terminal.USAGE)
        if not given:
            return None
        return MECHANISM_RULES[mechanism].parameters(**{name: _parse(known[name], given[name]) for name in given})


def mechanism_options(*uses: Use) -> type[MechanismOptions]:
    """Make the option group of a verb that uses keys so: an option for each parameter of each mechanism that fits."""
    found: dict[str, list[Parameter]] = {}
    for mechanism in Mechanism:
        if MECHANISM_RULES[mechanism].uses & set(uses):
            for each in parameters_of(mechanism):
                found.setdefault(each.name, []).append(each)
    fields = [(name, _annotation(each), dataclasses.field(default=None)) for name, each in found.items()]
    return dataclasses.make_dataclass("MechanismOptions", fields, bases=(MechanismOptions,), kw_only=True)


def _annotation(parameters: list[Parameter]) -> Any:
    """Make the annotation of one option; mechanisms may have different bounds and help for it.

    What fits none of them is refused with the line itself, before a password is asked for.
    """
    first = parameters[0]
    said = " ".join(dict.fromkeys(each.help for each in parameters))
    choices = tuple(dict.fromkeys(choice for each in parameters for choice in each.choices))
    if choices:
        said += f" One of {_listed(choices)}."
    ranges = [each.range for each in parameters if each.range is not None and each.kind is ParameterKind.NUMBER]

    def check(given: Any) -> Any:
        if given is not None:
            _parse(first.narrowed(choices) if choices else first, given)
        return given

    option = typer.Option(
        _option(first.name),
        metavar=_METAVARS.get(first.kind),
        help=said,
        min=min((each.least for each in ranges), default=None),
        max=max((each.most for each in ranges), default=None),
        show_default=False,
        rich_help_panel=_PANEL,
        callback=check,
    )
    return Annotated[_TYPES[first.kind], option]


def _names(group: type[MechanismOptions]) -> list[str]:
    known = {field.name for field in dataclasses.fields(MechanismOptions)}
    return [field.name for field in dataclasses.fields(group) if field.name not in known]


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _parse(parameter: Parameter, text: Any) -> Any:
    if parameter.kind is ParameterKind.BYTES:
        return files.unhex(text)
    if parameter.kind is not ParameterKind.NAME:
        return text
    wanted = text.upper().replace("_", "-")
    spelt = {choice.name.replace("_", "-"): choice for choice in parameter.choices}
    spelt |= {str(choice.value).upper(): choice for choice in parameter.choices}
    if wanted not in spelt:
        said = f"{_option(parameter.name)} {text!r} is none that fits"
        terminal.refuse(said, _listed(parameter.choices), terminal.USAGE)
    return spelt[wanted]


def _listed(choices: Choices) -> str:
    return ", ".join(str(choice.value) for choice in choices)
