"""``python -m pathology.viewer.model.worker``."""

from pathology.viewer.model.worker.loop import main

main()
