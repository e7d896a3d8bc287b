"""How far a study is: a bar on a terminal, lines that can be followed in a log."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tqdm import tqdm

State = Literal["done", "found", "refused", "failed", "blocked"]
Tell = Callable[[str], None]
EVERY_S = 60.0  # a line in a log about work that takes long


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a piece of work.

    Args:
        study: that it is of.
        kind: of the work: data, runs, backbones, pictures, slides, or a group of metrics.
        what: its name.
        state: done now, found done, refused by the method, failed, or blocked by a failure that is
            told where it happened.
        message: of a refusal or a failure, in one line.
        seconds: that it took.
    """

    study: str
    kind: str
    what: str
    state: State
    message: str = ""
    seconds: float = 0.0


class Progress:
    """Of some pieces of work: a line at the end of each that took any, and what is left.

    Args:
        what: the pieces.
        total: how many.
    """

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total = what, total
        self._over = self._found = self._worked = 0
        self._begun = self._told_at = time.monotonic()
        self._told = ""
        self._is_stopped = False
        self.bar: tqdm[Any] = tqdm(total=total, desc=what, disable=None, leave=False)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        if self._found:
            self._say(f"{self.what}: {self._found} of {self.total} done before")

    def tell(self, line: str) -> None:
        """What is being done.

        Raises:
            KeyboardInterrupt: it is to be stopped.
        """
        if self._is_stopped:
            raise KeyboardInterrupt
        if line == self._told:
            return
        self.bar.set_postfix_str(line)
        if self.bar.disable and time.monotonic() - self._told_at > EVERY_S:
            self._say(f"{self._count()}: {line}")
        self._told = line

    def teller(self, what: str) -> Tell:
        """For a piece, which tells how far it is."""
        return lambda line: self.tell(f"{what}: {line}" if line else what)

    def stop(self) -> None:
        """Whoever tells something from now on is stopped."""
        self._is_stopped = True

    def step(self, made: Sequence[Outcome]) -> Sequence[Outcome]:
        """One more is over."""
        self._over += 1
        states = {each.state for each in made}
        if states & {"done", "failed"}:
            self._worked += 1
            name, seconds = made[0].what, sum(each.seconds for each in made)
            how = "" if "done" in states else "failed after "
            self._say(f"{self._count()}: {name}, {how}{duration(seconds)}{self._left()}")
        elif states == {"found"}:
            self._found += 1
        for each in made:
            if each.state in ("failed", "refused"):
                self._say(f"{each.state}: {each.what} ({each.kind}): {each.message}")
        self.bar.update()
        return made

    def _count(self) -> str:
        return f"{self.what} {self._over}/{self.total}"

    def _left(self) -> str:
        """As if the rest took as long as what was done here so far."""
        rest = self.total - self._over
        if not rest:
            return ""
        passed = time.monotonic() - self._begun
        return f"; about {duration(passed / self._worked * rest)} left"

    def _say(self, line: str) -> None:
        self._told_at = time.monotonic()
        if self.bar.disable:
            print(line, flush=True)  # a log is read while it grows
        else:
            tqdm.write(line)


def duration(seconds: float) -> str:
    """To be read: ``8 s``, ``4 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
