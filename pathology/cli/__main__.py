"""``python -m pathology.cli``, the same as the ``pathology`` command."""

import sys

from pathology.cli import main

sys.exit(main())
