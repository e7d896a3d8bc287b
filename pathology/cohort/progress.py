"""How far a run is, for people: one bar for all workers, or a line now and then in a log."""

import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathology.cohort.tally import Tally

STEP = 0.1
"""Share of the slides after which a log gets a line."""
LOG_S = 60.0
"""Seconds after which it gets one anyway, ..."""
LEAST_S = 5.0
"""... and before which it gets none."""


class Progress:
    """A bar on a terminal; else, as in logs of SLURM, a line per tenth or minute on stderr.

    Args:
        what: is done, in front of it.
        tally: how the run stands.
    """

    def __init__(self, what: str, tally: "Tally") -> None:
        self._what, self._tally = what, tally
        self._alone = tally.slides < 2  # nothing to say of one slide
        self._bar: Any = None
        self._said, self._said_at = 0, time.monotonic()
        if sys.stderr.isatty() and not self._alone:
            from tqdm import tqdm

            form = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
            self._bar = tqdm(total=tally.slides, desc=what, unit="slide", bar_format=form)

    def say(self, line: str) -> None:
        """A line on stdout, above the bar."""
        if self._bar is None:
            print(line, flush=True)
        else:
            self._bar.write(line)

    def show(self) -> None:
        """Bring it up to date."""
        if self._bar is not None:
            self._bar.n = self._tally.ended
            self._bar.set_postfix_str(", ".join(self._parts()), refresh=False)
            self._bar.refresh()
        elif self._is_due():
            self._log()

    def close(self) -> None:
        """It says no more than where it ended."""
        self.show()
        if self._bar is not None:
            self._bar.close()
        elif not self._alone and self._said < self._tally.ended:
            self._log()

    def _is_due(self) -> bool:
        since_s = time.monotonic() - self._said_at
        far = self._tally.ended - self._said >= STEP * self._tally.slides
        return not self._alone and (since_s >= LOG_S or (far and since_s >= LEAST_S))

    def _log(self) -> None:
        ended, slides = self._tally.ended, self._tally.slides
        self._said, self._said_at = ended, time.monotonic()
        parts = [f"{ended:,} of {slides:,} slides ({100 * ended // slides} %)", *self._parts()]
        line = f"{time.strftime('%H:%M:%S')} {self._what}: {', '.join(parts)}"
        print(line, file=sys.stderr, flush=True)

    def _parts(self) -> list[str]:
        tally = self._tally
        parts = []
        speed, share = tally.tiles_per_s, tally.waited_share
        if tally.ended < tally.slides:
            left_s = tally.left_s
            parts.append("? left" if left_s is None else f"{duration(left_s)} left")
        else:  # of all of it, then
            speed, share = tally.mean_tiles_per_s, tally.mean_waited_share
            parts.append(f"in {duration(tally.seconds)}")
        if tally.tiles:
            parts.append(f"{speed:,.0f} tiles/s")
        if tally.waited_s:
            parts.append(f"model waits {100 * share:.0f} %")
        if tally.failed:
            parts.append(f"{tally.failed:,} failed")
        if tally.there:
            parts.append(f"{tally.there:,} done before")
        if tally.losses:
            parts.append(f"{tally.losses:,} worker{'s' if tally.losses > 1 else ''} lost")
        if tally.workers > 1:
            parts.append(f"{tally.workers:,} workers")
        return parts


def duration(seconds: float) -> str:
    """``3:07`` minutes, ``12:03:07`` hours, ``3 d 02:10`` days and hours."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24:02}:{minute:02}"
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
