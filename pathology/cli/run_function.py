"""Running a typed function from the command line: its signature and docstring are the options."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from jsonargparse import ArgumentParser


def run_function(
    function: Callable[..., int], arguments: Sequence[str], verb: str | None = None
) -> int:
    """Parse ``arguments`` by the function's own annotations and call it.

    Args:
        function: keyword arguments become ``--options``; ``--config FILE`` reads them from YAML.
        arguments: what stands behind the verb.
        verb: for the usage; the function's name when omitted.

    Returns:
        What the function returns: an exit code.
    """
    parser = ArgumentParser(
        prog=f"pathology {verb or function.__name__}",
        description=(inspect.getdoc(function) or "").split("\n\nArgs:")[0],
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    parser.add_function_arguments(function, as_positional=False)
    words = _plain_words(arguments, function)
    values: dict[str, Any] = parser.instantiate(parser.parse_args(words)).as_dict()
    values.pop("config", None)
    return function(**values)


def _plain_words(arguments: Sequence[str], function: Callable[..., int]) -> list[str]:
    """``--keep-going`` becomes ``--keep_going true``: dashes as people type them, bare switches."""
    switches = {
        f"--{name}"
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.annotation is bool
    }
    words: list[str] = []
    for i, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            name = "--" + name[2:].replace("-", "_")
        words.append(name + equals + value)
        following = arguments[i + 1] if i + 1 < len(arguments) else "--"
        if name in switches and not equals and following.lower() not in ("true", "false"):
            words.append("true")
    return words
