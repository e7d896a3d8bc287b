"""``python -m pathology.cli.child VERB ...``: a verb that ends when whoever started it does.

That one holds the other end of its standard input. However it goes, by a signal that nobody can
catch too, the system closes that end; the verb is then told to stop, as by SIGTERM.
"""

import os
import signal
import sys
import threading

from pathology.cli import main


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(main())
