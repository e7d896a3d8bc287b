"""Asking the model that made an explanation: about a tile, or what it says without a region.

The viewer holds questions and answers (``client``); models are loaded in a process of its own
(``worker``), which is started by the first question.
"""

from pathology.viewer.model.client import ModelClient

__all__ = ["ModelClient"]
