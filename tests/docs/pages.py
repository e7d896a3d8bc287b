"""Run a page of the documentation as its reader would: every block, in order, in one folder.

What a fence is, is said by its language and its first line:

* ``console``: lines that begin with ``$ `` are commands (a backslash at the end goes on in the next
  line), the others what they print, which is not compared. ``pathology`` runs in this process, as
  importing torch anew for each command would take most of the time; others run in bash.
* ``python``: run in one namespace for the page.
* any language whose first line is ``# a_name.ext``: saved as that file.
* others are only read.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from pathology.cli import main

DOCS = Path(__file__).parents[2] / "docs"
# Commands that go on until they are stopped.
SERVERS = ("view",)


@dataclass
class Ran:
    """What a page left: names of its Python, and what each ``pathology`` command printed."""

    names: dict[str, object] = field(default_factory=dict)
    printed: list[tuple[str, str]] = field(default_factory=list)
    servers: list[list[str]] = field(default_factory=list)

    def output_of(self, start: str) -> str:
        """What the first command that begins with ``start`` printed."""
        return next(text for command, text in self.printed if command.startswith(start))


def fences(text: str) -> list[tuple[str, str]]:
    """Language and content of each fence of a page."""
    return re.findall(r"^```([\w-]*)[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(console: str) -> list[str]:
    """The commands of a console fence."""
    joined = re.sub(r"\\\n\s*(?:> )?", " ", console)
    return [line[2:].strip() for line in joined.splitlines() if line.startswith("$ ")]


def in_process(arguments: list[str]) -> str:
    """Run ``pathology`` here; returns what it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = main(arguments)
    assert code == 0, f"pathology {shlex.join(arguments)}: exit code {code}\n{out.getvalue()}"
    return out.getvalue()


def in_bash(command: str) -> None:
    """Run a command as a shell would, with the interpreter of the tests in front."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], env=os.environ | {"PATH": path},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def run_page(page: str, folder: Path, monkeypatch, replace: dict[str, str] | None = None) -> Ran:
    """Run ``docs/<page>`` in ``folder``; ``replace`` makes long commands short.

    Each key of ``replace`` must be on the page: a page that changed is noticed.
    """
    text = (DOCS / page).read_text()
    for old, new in (replace or {}).items():
        assert old in text, f"docs/{page} says no longer {old!r}"
        text = text.replace(old, new)
    monkeypatch.chdir(folder)
    ran = Ran()
    for language, content in fences(text):
        named = re.match(r"# ([\w./-]+\.\w+)\n", content)
        if named:
            path = Path(named.group(1))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        elif language == "python":
            exec(compile(content, f"docs/{page}", "exec"), ran.names)
        elif language == "console":
            for command in commands(content):
                words = shlex.split(command, comments=True)
                if words[:1] != ["pathology"]:
                    in_bash(command)
                elif words[1] in SERVERS:
                    ran.servers.append(words[1:])
                else:
                    ran.printed.append((command, in_process(words[1:])))
    return ran
