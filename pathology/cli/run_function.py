"""Running a typed function from the command line: its signature and docstring are the options."""

import inspect
import json
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, get_args, get_origin

from jsonargparse import ArgumentParser


def run_function(
    function: Callable[..., int],
    arguments: Sequence[str],
    verb: str | None = None,
    *,
    config: bool = True,
) -> int:
    """Parse ``arguments`` by the function's own annotations and call it.

    Args:
        function: keyword arguments become ``--options``; ``--config FILE`` reads them from YAML.
        arguments: what stands behind the verb.
        verb: for the usage; the function's name when omitted.
        config: whether ``--config`` is such a file; otherwise the function may take it itself.

    Returns:
        What the function returns: an exit code.
    """
    parser = ArgumentParser(
        prog=f"pathology {verb or function.__name__}",
        description=(inspect.getdoc(function) or "").split("\n\nArgs:")[0],
    )
    if config:
        parser.add_argument("--config", action="config", help="YAML file with any of these options")
    parser.add_function_arguments(function, as_positional=False)
    words = _plain_words(arguments, function)
    values: dict[str, Any] = parser.instantiate(parser.parse_args(words)).as_dict()
    if config:
        values.pop("config", None)
    return function(**values)


def _plain_words(arguments: Sequence[str], function: Callable[..., int]) -> list[str]:
    """Words as jsonargparse takes them.

    ``--keep-going`` becomes ``--keep_going true``: dashes as people type them, bare switches. And
    ``--results a b`` becomes ``--results ["a", "b"]``, for options that take a list.
    """
    parameters = inspect.signature(function).parameters.items()
    switches = {f"--{name}" for name, each in parameters if each.annotation is bool}
    lists = {f"--{name}" for name, each in parameters if _takes_list(each.annotation)}
    words: list[str] = []
    arguments = _joined(arguments, lists)
    for i, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            name = "--" + name[2:].replace("-", "_")
        words.append(name + equals + value)
        following = arguments[i + 1] if i + 1 < len(arguments) else "--"
        if name in switches and not equals and following.lower() not in ("true", "false"):
            words.append("true")
    return words


def _takes_list(annotation: Any) -> bool:
    return any(get_origin(each) is list for each in (annotation, *get_args(annotation)))


def _joined(arguments: Sequence[str], lists: Collection[str]) -> list[str]:
    """``arguments`` with several words behind an option of ``lists`` as one, a list of YAML's."""
    words: list[str] = []
    rest = deque(arguments)
    while rest:
        words.append(rest.popleft())
        if words[-1].replace("-", "_").replace("__", "--", 1) in lists:
            behind = []
            while rest and not rest[0].startswith("--"):
                behind.append(rest.popleft())
            words += [json.dumps(behind, ensure_ascii=False)] if len(behind) > 1 else behind
    return words
