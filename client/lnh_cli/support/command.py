"""One way to write a verb: its options come in groups, its errors become two lines and an exit status.

    @verb(app, "list", AdminOptions)
    def list_(options: AdminOptions) -> None: ...

The fields of the option group (a dataclass whose annotations are typer's) become options of the verb; the function gets
the group as its first argument.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import inspect
import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, get_type_hints

import typer

from lnh_cli.support import terminal, words

if TYPE_CHECKING:
    from lnh_common.messages.base import Behind, Skipped

G = TypeVar("G", bound="Output")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", hidden=True)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


_HINTS: Final[dict[type, dict[str, Any]]] = {}  # of option groups


@dataclasses.dataclass(kw_only=True)
class Output:
    """Shows the results of every verb."""

    json: JsonOption = False
    debug: DebugOption = False

    def __post_init__(self) -> None:
        self.behind: Behind | None = None  # of a member that listed what may not be all there is
        self.skipped: tuple[Skipped, ...] = ()  # what was left out, since it does not open at the member

    def rows(self, rows: Any, *columns: str) -> None:
        """Show records as a table of these columns, or as JSON."""
        if self.json:
            self.show_json(list(rows))
        else:
            terminal.show_rows(rows, columns=columns)

    def record(self, record: Any) -> None:
        """Show one record, field by field, or as JSON."""
        if self.json:
            self.show_json(record)
        else:
            terminal.show_record(record)

    def show_json(self, value: Any) -> None:
        """Print JSON; a listing that may not be all there is says so.

        Each item of a member that is behind says up to when the listing is whole, so a list stays one. A list is put
        into an object beside what a damaged member left out.
        """
        if self.behind is not None or self.skipped:
            value = terminal.plain(value)
        if self.skipped and not isinstance(value, dict):
            value = {"items": value}
        if self.skipped:
            value["skipped"] = terminal.plain(self.skipped)
        if self.behind is not None:
            until = self.behind.whole_until
            told = {"current": False, "whole_until": terminal.moment(until // 1000) if until else None}
            value = {**value, **told} if isinstance(value, dict) else [{**item, **told} for item in value]
        terminal.show_json(value)

    def note_behind(self, behind: Behind) -> None:
        """Say on stderr, once, that a listing may not be all there is."""
        if self.behind is None:
            terminal.note(f"{behind.refusal()}. To ask a member that is in step: --current")
        self.behind = behind

    def note_skipped(self, skipped: tuple[Skipped, ...]) -> None:
        """Say on stderr what is left out of a listing, and why."""
        self.skipped += skipped
        for each in skipped:
            terminal.note(f"left out: {each.id.hex()}: {each.why}. This member is damaged: lnh doctor")

    def say(self, text: str, **fields: Any) -> None:
        """Show a sentence, or the fields as JSON."""
        terminal.say(text, as_json=self.json, **fields)


class Noun(typer.Typer):
    """Some verbs of the tree, each of which is made when it is asked for: a command line is about one of them."""

    def __init__(self, name: str | None = None, about: str | None = None) -> None:
        super().__init__(
            name=name, help=about, cls=words.Group, no_args_is_help=True, pretty_exceptions_show_locals=False
        )
        self._declared: dict[str, Callable[[], None]] = {}

    def declare(self, name: str, make: Callable[[], None]) -> None:
        """Take in how a verb is made."""
        self._declared[name] = make

    def has(self, word: str) -> bool:
        """Tell whether a verb has this name."""
        return word in self._declared or any(each.name == word for each in self.registered_commands)

    def make(self, word: str = "") -> None:
        """Make the verb of this name; where it is of none, all verbs, of the nouns within this one too."""
        if word in self._declared:
            self._declared.pop(word)()
            return
        while self._declared:
            self._declared.pop(next(iter(self._declared)))()
        for within in self.registered_groups:
            if isinstance(within.typer_instance, Noun):
                within.typer_instance.make()


def noun(name: str, about: str) -> Noun:
    """Make a noun of the tree."""
    return Noun(name, about)


def verb(
    app: Noun, name: str, group: type[G] | functools.partial[type[G]]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Enter a function as a verb of `app` with the options of `group`, or of the group that it makes."""

    def enter(function: Callable[..., None]) -> Callable[..., None]:
        def make() -> None:
            about, options = inspect.getdoc(function), group() if isinstance(group, functools.partial) else group
            app.command(name, cls=words.Verb, help=about)(with_options(function, options))

        app.declare(name, make)
        return function

    return enter


def with_options(function: Callable[..., None], group: type[G]) -> Callable[..., None]:
    """Replace the first parameter of a function by the fields of the option group."""
    # Not of the function itself: Python 3.10 would wrap what has the default None once more, and hide typer's part.
    annotated = types.SimpleNamespace(__annotations__=function.__annotations__)
    own = get_type_hints(annotated, function.__globals__, include_extras=True)
    first, *rest = inspect.signature(function).parameters.values()
    del first
    hints = _hints(group)
    parameters = [parameter.replace(annotation=own[parameter.name]) for parameter in rest]
    parameters += [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(group)
    ]
    names = [field.name for field in dataclasses.fields(group)]

    @functools.wraps(function)
    def command(**arguments: Any) -> None:
        options = group(**{name: arguments.pop(name) for name in names})
        run(functools.partial(function, options, **arguments), debug=options.debug)

    parameters.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)
    signature = inspect.Signature([parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters])
    command.__dict__["__signature__"] = signature
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _hints(group: type[Output]) -> dict[str, Any]:
    if group not in _HINTS:
        _HINTS[group] = get_type_hints(group, include_extras=True)
    return _HINTS[group]


def run(action: Callable[[], None], *, debug: bool) -> None:
    """Run an action; an error of the product ends the process with its two lines and exit status."""
    from lnh_common.errors import DeadlineExceeded, LnhError, Unreachable

    try:
        action()
    except LnhError as error:
        if debug:
            raise
        unreachable = isinstance(error, Unreachable | DeadlineExceeded)
        advice = error.detail.get("advice")
        terminal.refuse(
            str(error),
            advice if isinstance(advice, str) else error.advice,
            terminal.UNREACHABLE if unreachable else terminal.REFUSED,
        )
    except BrokenPipeError:
        # The reader of our output has enough; leave nothing for the interpreter to flush.
        sys.stdout = None
        raise typer.Exit(terminal.REFUSED) from None
    except OSError as error:
        if debug:
            raise
        if error.errno == errno.EBADF and not error.filename:
            terminal.refuse(str(error.strerror), "leave it open, or name a file")
        named = f"{error.filename}: " if error.filename else ""
        terminal.refuse(f"{named}{error.strerror or error}", "name a file that can be read or written")
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:  # the shell of every verb: a bug is two lines too
        if debug:
            raise
        terminal.refuse(f"this is a bug: {type(error).__name__}: {error}", "repeat with --debug, and report it")
