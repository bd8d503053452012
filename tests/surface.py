"""Makes `lnh.aio` of the blocking SDK. `python tests/surface.py` writes it; `make check` and tests hold that it is current, and whole.

The blocking SDK is written, and each of its modules in `MODULES` has a twin with `await`, made by these rules:

- A function waits if it calls one that does (`WAITS` has those where it begins, which are written by hand). It is
  `async def` in the twin, and its calls are awaited. Methods go by their names, functions by theirs.
- A function that returns an `Iterator` or a `Listing` returns one for `async for`, and so are loops over it.
- A block that takes a lock, a channel or a session is `async with`.
- What these rules cannot know is a row of `INSTEAD`. A row that changes nothing is an error.

mypy tells where a rule did not see that something waits, or saw it where nothing does: no coroutine is a value.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
MODULES: Final = (
    "lnh.net.connection",
    "lnh.sessions",
    "lnh.objects.calls",
    "lnh.objects.feeding",
    "lnh.objects.base",
    "lnh.objects.uses",
    "lnh.objects.keys",
    "lnh.objects.session",
    "lnh.keyring_lists",
    "lnh.keyrings",
    "lnh.cluster",
    "lnh.backups",
    "lnh.admin",
)
BY_HAND: Final = ("lnh.net.mutex", "lnh.net.pool", "lnh.objects.listings", "lnh.registration")  # of the same names

# What has no twin, and why: modules, functions and classes of the others, and methods.
_WAITS_FOR_NOBODY: Final = "waits for nobody, and is used from there"
_DRIVEN: Final = "is driven by both, and does not wait by itself where it is given no time"
LEFT_OUT: Final[dict[str, str]] = {
    "lnh": "names what the others have",
    "lnh.arguments": _WAITS_FOR_NOBODY,
    "lnh.diagnosis": _WAITS_FOR_NOBODY,
    "lnh.configuration": _WAITS_FOR_NOBODY,
    "lnh.net.channel": _DRIVEN,
    "lnh.net.failover": _WAITS_FOR_NOBODY,
    "lnh.net.link": _DRIVEN,
    "lnh.net.request": _WAITS_FOR_NOBODY,
    "lnh.net.requests": _WAITS_FOR_NOBODY,
    "lnh.net.unserved": _WAITS_FOR_NOBODY,
    "lnh.objects.encoding": _WAITS_FOR_NOBODY,
    "lnh.objects.imports": _WAITS_FOR_NOBODY,
    "lnh.objects.key_files": _WAITS_FOR_NOBODY,
    "lnh.objects.jwk": _WAITS_FOR_NOBODY,
    "lnh.objects.chains": _WAITS_FOR_NOBODY,
    "lnh.objects.streams": _WAITS_FOR_NOBODY,
    "lnh.objects.streaming": _WAITS_FOR_NOBODY,
    "lnh.objects.as_cryptography": "`cryptography` asks its keys for signatures without waiting",
    "lnh.objects.keys.PrivateKey.as_cryptography": "`cryptography` asks its keys for signatures without waiting",
    "lnh.objects.authority": "a CA's tools, which sign by `cryptography`",
    "lnh.objects.certificates": "a CA's tools, which sign by `cryptography`",
    "lnh.registration.Asked": "is of `register`",
    "lnh.registration.register": "is done once on a machine, asks somebody in between, and locks client.toml meanwhile",
    "lnh.backups.copy_in": "is for the files of a member at hand",
    "lnh.console": "is at the member itself, which serves one order after the other",
    "lnh.migration": "is done once, from another token, whose library waits; all modules of it",
    "lnh.partitions": "is at the member itself, which serves one order after the other",
    "lnh.cluster.connect_through": "is the command line's, for `--member`",
}

# --- what waits, at its beginnings: methods; functions that are written by hand; and arguments that are called
WAITS: Final = frozenset({"borrow", "step", "wait", "close", "_again", "__enter__", "__exit__"})
WAITS_BY_HAND: Final = frozenset({"lnh.registration.connect_as_guest"})
WAITS_GIVEN: Final = frozenset({"ask", "take", "write", "listed"})
# Of others, with the name of a method that waits.
NEVER_WAITS: Final = ("owner.check", "os.close", "Statement.verify", "SessionKeys.derive")
ENTERED: Final = (".hold", ".channel", ".login")

INSTEAD: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "lnh.net.connection": (
        ("for any number of threads.", "for any number of tasks of one event loop."),
        ("lends its channels (`channel.py`: one socket and the requests on it), newest first, to the threads that", "lends shares of its channel (`lnh.net.channel`: one socket and the requests on it) to the tasks that"),
        ("what becomes of a channel whose user is interrupted", "what becomes of a share whose user is cancelled"),
        ("any thread may use it, at the same time as others.", "any task of the loop that first uses it may, at the same time as others."),
        ("Lend a channel to the caller alone, to keep many requests in flight from one thread.", "Lend a share of the channel to the caller alone, to keep many requests in flight from one task."),
        ("from lnh.net.channel import Channel, Routes", "from lnh.net.channel import Routes"),
        ("time.sleep(", "await asyncio.sleep("),
        ("import os\n", "import asyncio\nimport os\n"),
        ("from lnh.net.pool import CHANNELS, Pool", "from lnh.net.pool import Pool, Share"),
        ("Pool(lambda: Channel(self._routes), CHANNELS, self.owner)", "Pool(self._routes, self.owner)"),
        ("import contextmanager", "import asynccontextmanager"),
        ("@contextmanager", "@asynccontextmanager"),
        ("Iterator[Channel]", "Iterator[Share]"),
        ("also in a process that did not make this connection.", "also in a process or an event loop that did not make this connection."),
        ("no other thread does it", "no other task does it"),
        ("Close every channel that is not in use now, and each of the others when it is given back.", "Take no more calls, and close the channel once those under way have ended."),
    ),
    "lnh.sessions": (
        ("LogIn: TypeAlias = Callable[[], tuple[bytes, LoggedIn]]", "LogIn: TypeAlias = Callable[[], Awaitable[tuple[bytes, LoggedIn]]]"),
        ("import Callable, Iterable, Iterator", "import Awaitable, Callable, Iterable, Iterator"),
        ("Any thread may use it.", "Any task may use it."),
        ("# another thread did it", "# another task did it"),
    ),
    "lnh.objects.feeding": (
        ("Callable[[BinaryIO, Iterator[wire.Result]], None]", "Callable[[BinaryIO, Iterator[wire.Result]], Awaitable[None]]"),
        ("Callable[[Iterator[wire.Result]], T]", "Callable[[Iterator[wire.Result]], Awaitable[T]]"),
        ("from collections.abc import Callable, Iterator", "from collections.abc import Awaitable, Callable, Iterator"),
        ("is fed again from its beginning.\n", "is fed again from its beginning. Files are\nread and written in the loop, a part at a time.\n"),
    ),
    "lnh.keyring_lists": (("    def __call__(self, message", "    async def __call__(self, message"),),
    "lnh.cluster": (
        ("Any thread may use it.", "Any task may use it."),
        ('"""`lnh.connect`: a', '"""`lnh.aio.connect`: a'),
    ),
    "lnh.backups": (
        ("with lnh.admin.connect(", "async with await lnh.aio.admin.connect("),
        ("job = administration.backups.wait(administration.backups.now())", "job = await administration.backups.wait(await administration.backups.now())"),
        ("administration.backups.download(", "await administration.backups.download("),
        ("time.sleep(", "await asyncio.sleep("),
        ("import time\n", "import asyncio\n"),
    ),
    "lnh.admin": (
        ("with lnh.admin.connect(", "async with await lnh.aio.admin.connect("),
        ("        administration.create_keyrings(", "        await administration.create_keyrings("),
        ("logs in with `login(cluster.connection, ...)`", "logs in with `await login(cluster.connection, ...)`"),
        ("listed: Callable[..., Listed[V]]", "listed: Callable[..., Awaitable[Listed[V]]]"),
        ("import Callable, Iterable, Iterator", "import Awaitable, Callable, Iterable, Iterator"),
    ),
}  # fmt: skip


class Twin:
    """One module and what is changed of it."""

    def __init__(self, name: str) -> None:
        self.name: Final = name
        text = source_of(name).read_text()
        for before, after in INSTEAD.get(name, ()):
            assert before in text, f"{name}: nothing is {before!r}; a row of INSTEAD is out of date"
            text = text.replace(before, after)
        self.text: Final = text.encode()
        self.tree: Final = ast.parse(self.text)
        self.parents: Final = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}
        self._starts: Final = [0]
        for line in self.text.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._edits: Final[list[tuple[int, int, bytes]]] = []
        self.imported: Final = {
            alias.asname or alias.name: f"{node.module}.{alias.name}"
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }

    def offset(self, line: int, column: int) -> int:
        return self._starts[line - 1] + column

    def begin(self, node: ast.expr | ast.stmt) -> int:
        return self.offset(node.lineno, node.col_offset)

    def end(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None, "it was parsed from a text"
        assert node.end_col_offset is not None, "as well"
        return self.offset(node.end_lineno, node.end_col_offset)

    def insert(self, at: int, text: str) -> None:
        self._edits.append((at, at, text.encode()))

    def replace(self, begin: int, end: int, text: str) -> None:
        self._edits.append((begin, end, text.encode()))

    def edited(self) -> str:
        parts, at = [], 0
        for begin, end, text in sorted(self._edits, key=lambda edit: edit[0]):
            if begin < at:
                continue  # within what is left out
            parts += [self.text[at:begin], text]
            at = end
        return b"".join([*parts, self.text[at:]]).decode()

    def qualified(self, node: ast.AST) -> str:
        names = []
        at: ast.AST | None = node
        while at is not None:
            if isinstance(at, ast.FunctionDef | ast.ClassDef):
                names.append(at.name)
            at = self.parents.get(at)
        return ".".join([self.name, *reversed(names)])


Function = ast.FunctionDef


class Surface:
    """All twins, and which of their functions wait."""

    def __init__(self) -> None:
        self.twins: Final = [Twin(name) for name in MODULES]
        self.methods, self.functions = set(WAITS), set(WAITS_BY_HAND)
        self.iterated_methods: set[str] = set()
        self.iterated_functions: set[str] = set()
        self._names: Final[dict[Function, set[str]]] = {}
        for twin, function in self._all():
            if function.returns is not None and _is_iterator(function.returns) and not _is_block(function):
                known = self._of(twin, function, self.iterated_methods, self.iterated_functions)
                known.add(self._name(twin, function))
        grew = True
        while grew:
            grew = False
            for twin, function in self._all():
                known = self._of(twin, function, self.methods, self.functions)
                name = self._name(twin, function)
                if name not in known and not self._is_iterated_itself(twin, function) and self._waits(twin, function):
                    known.add(name)
                    grew = True

    def _all(self) -> Iterator[tuple[Twin, Function]]:
        for twin in self.twins:
            for node in ast.walk(twin.tree):
                if isinstance(node, Function) and twin.qualified(node) not in LEFT_OUT:
                    yield twin, node

    @staticmethod
    def _of(twin: Twin, function: Function, methods: set[str], functions: set[str]) -> set[str]:
        return methods if isinstance(twin.parents[function], ast.ClassDef) else functions

    @staticmethod
    def _name(twin: Twin, function: Function) -> str:
        """Return a method's name, or a function's within its module."""
        is_method = isinstance(twin.parents[function], ast.ClassDef)
        return function.name if is_method else f"{twin.name}.{function.name}"

    def _is_iterated_itself(self, twin: Twin, function: Function) -> bool:
        known = self._of(twin, function, self.iterated_methods, self.iterated_functions)
        return self._name(twin, function) in known or _is_block(function)

    # --- what a node does

    @staticmethod
    def _called(twin: Twin, name: ast.Name) -> str:
        return twin.imported.get(name.id, f"{twin.name}.{name.id}")

    def _is_call_of(self, twin: Twin, node: ast.AST, methods: set[str], functions: set[str]) -> bool:
        if not isinstance(node, ast.Call) or ast.unparse(node.func).endswith(NEVER_WAITS):
            return False
        if isinstance(node.func, ast.Name):
            return self._called(twin, node.func) in functions
        if not isinstance(node.func, ast.Attribute):
            return False
        of = node.func.value
        if isinstance(of, ast.Name) and twin.imported.get(of.id) in MODULES:
            return f"{twin.imported[of.id]}.{node.func.attr}" in functions
        return node.func.attr in methods

    def is_awaited(self, twin: Twin, node: ast.AST) -> bool:
        given = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in WAITS_GIVEN
        return given or self._is_call_of(twin, node, self.methods, self.functions)

    def is_iterated(self, twin: Twin, node: ast.expr) -> bool:
        """Tell whether this is iterated with `async for`."""
        if isinstance(node, ast.GeneratorExp):
            return any(self.is_iterated(twin, each.iter) for each in node.generators)
        if isinstance(node, ast.Name):
            return node.id in self._iterated_names(twin, node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {"each", "where"}:
            return self.is_iterated(twin, node.func.value)
        return self._is_call_of(twin, node, self.iterated_methods, self.iterated_functions)

    def _iterated_names(self, twin: Twin, node: ast.AST) -> set[str]:
        """Find the names that stand for something to iterate in the function around a node, by how they came to be."""
        while not isinstance(node, Function):
            if isinstance(node, ast.Module):
                return set()
            node = twin.parents[node]
        if node in self._names:
            return self._names[node]
        arguments = [*node.args.args, *node.args.kwonlyargs]
        names = {each.arg for each in arguments if each.annotation and _is_iterator(each.annotation)}
        self._names[node] = names  # what is found further down may rest on what is found here
        assigned = [each for each in ast.walk(node) if isinstance(each, ast.Assign)]
        for each in sorted(assigned, key=lambda each: each.lineno):
            if isinstance(each.targets[0], ast.Name) and self.is_iterated(twin, each.value):
                names.add(each.targets[0].id)
        return names

    def _waits(self, twin: Twin, function: Function) -> bool:
        return any(
            self.is_awaited(twin, node)
            or self._is_async_block(twin, node)
            or self._takes_all(twin, node)
            or (
                isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp)
                and any(self.is_iterated(twin, each.iter) for each in node.generators)
            )
            for node in _own(function)
        )

    def _is_async_block(self, twin: Twin, node: ast.AST) -> bool:
        if isinstance(node, ast.With):
            calls = [each.context_expr for each in node.items]
            return any(isinstance(each, ast.Call) and ast.unparse(each.func).endswith(ENTERED) for each in calls)
        return isinstance(node, ast.For) and self.is_iterated(twin, node.iter)

    def _takes_all(self, twin: Twin, node: ast.AST) -> bool:
        return (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"list", "next"}
            and bool(node.args)
            and self.is_iterated(twin, node.args[0])
        )

    # --- the twins

    def write(self, twin: Twin) -> str:
        for node in ast.walk(twin.tree):
            self._change(twin, node)
        text = re.sub(r"\bIterator\b", "AsyncIterator", twin.edited())
        text = text.replace("__enter__", "__aenter__").replace("__exit__", "__aexit__")
        made_of = source_of(twin.name).relative_to(ROOT).as_posix()
        return _tidied(
            f"# Made of {made_of} by `python tests/surface.py`: change that file, and run it.\n{text}", twin.name
        )

    def _change(self, twin: Twin, node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and twin.qualified(node) in LEFT_OUT:
            first = node.decorator_list[0] if node.decorator_list else node
            twin.replace(twin.offset(first.lineno, 0), twin.end(node), "")
        elif isinstance(node, Function):
            if self._is_async(twin, node):
                twin.insert(twin.begin(node), "async ")
        elif isinstance(node, ast.ImportFrom):
            self._import(twin, node)
        elif isinstance(node, ast.With | ast.For) and self._is_async_block(twin, node):
            twin.insert(twin.begin(node), "async ")
        elif isinstance(node, ast.comprehension) and self.is_iterated(twin, node.iter):
            twin.insert(twin.text.rindex(b"for", 0, twin.begin(node.target)), "async ")
        elif isinstance(node, ast.Call) and self._takes_all(twin, node):
            assert isinstance(node.func, ast.Name)
            if node.func.id == "next":
                twin.replace(twin.begin(node.func), twin.end(node.func), "await anext")
            else:
                twin.replace(twin.begin(node), twin.begin(node.args[0]), "[each async for each in ")
                twin.replace(twin.end(node.args[0]), twin.end(node), "]")
        elif isinstance(node, ast.Call) and self.is_awaited(twin, node):
            parent = twin.parents[node]
            within = isinstance(parent, ast.Attribute | ast.Subscript) and parent.value is node
            twin.insert(twin.begin(node), "(await " if within else "await ")
            if within:
                twin.insert(twin.end(node), ")")

    def _is_async(self, twin: Twin, function: Function) -> bool:
        if self._is_iterated_itself(twin, function):
            return any(isinstance(node, ast.Yield) for node in _own(function)) and self._waits(twin, function)
        return self._name(twin, function) in self._of(twin, function, self.methods, self.functions)

    @staticmethod
    def _import(twin: Twin, node: ast.ImportFrom) -> None:
        assert node.module is not None
        if node.module in (*MODULES, *BY_HAND):
            begin = twin.begin(node) + len("from ")
            twin.replace(begin, begin + len(node.module), twin_of(node.module))
            return
        ours = [each for each in node.names if f"{node.module}.{each.name}" in (*MODULES, *BY_HAND)]
        if ours:
            lines = [(twin_of(node.module), ours), (node.module, [each for each in node.names if each not in ours])]
            said = [f"from {module} import {', '.join(map(ast.unparse, names))}" for module, names in lines if names]
            indent = "\n" + " " * node.col_offset
            twin.replace(twin.begin(node), twin.end(node), indent.join(said))


def _is_iterator(annotation: ast.expr) -> bool:
    return re.match(r"(Iterator|Listing)\b", ast.unparse(annotation)) is not None


def _is_block(function: Function) -> bool:
    return any("contextmanager" in ast.unparse(each) for each in function.decorator_list)


def _own(function: Function) -> Iterator[ast.AST]:
    """Walk a function without those in it."""
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            todo += ast.iter_child_nodes(node)


def source_of(module: str) -> Path:
    return (ROOT / "client" / Path(*module.split("."))).with_suffix(".py")


def twin_of(module: str) -> str:
    return "lnh.aio" + module.removeprefix("lnh")


def _tidied(text: str, module: str) -> str:
    for command in (("check", "--select=I,F401,RUF100", "--fix"), ("format",)):
        ruff = [sys.executable, "-m", "ruff", *command, "--quiet", "--stdin-filename", source_of(twin_of(module)), "-"]
        text = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout
    return text


def made() -> dict[Path, str]:
    """All files of `lnh.aio` that are not written by hand, as they should be."""
    surface = Surface()
    return {source_of(twin_of(twin.name)): surface.write(twin) for twin in surface.twins}


def stale() -> list[Path]:
    """The files of `lnh.aio` that are not as they should be."""
    return [path for path, text in made().items() if not path.exists() or path.read_text() != text]


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        found = [path.relative_to(ROOT).as_posix() for path in stale()]
        sys.exit(f"{', '.join(found)}: made of an older SDK; run `python tests/surface.py`" if found else 0)
    for path, text in made().items():
        path.write_text(text)
