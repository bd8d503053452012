"""Checks an argument by the field of the message that it travels in, before anything is asked for.

    Label = Annotated[str, typer.Argument(help="The keyring.", callback=field("admin.CreateKeyrings", "label"))]

So a name that no member would take is refused before a password is typed. The message's module is imported when there
is a value to check.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lnh_cli.support import terminal


def field(message: str, name: str) -> Callable[[Any], Any]:
    """Make the callback of an argument.

    Args:
        message: of `lnh_common.messages`, with its module: "admin.AddUser".
        name: of its field.
    """
    module, _, kind = message.partition(".")

    def check(value: Any) -> Any:
        if value is None:
            return None
        import importlib
        from typing import get_type_hints

        import msgspec

        from lnh_common.errors import MalformedMessage
        from lnh_common.wire import codec

        found = getattr(importlib.import_module(f"lnh_common.messages.{module}"), kind)
        alone = msgspec.defstruct("Alone", [(name, get_type_hints(found, include_extras=True)[name])])
        try:
            codec.convert({name: value}, alone)
        except MalformedMessage as error:
            terminal.refuse(str(error), f"correct {name}", terminal.USAGE)
        return value

    return check
