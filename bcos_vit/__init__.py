"""B-cos networks and their exact explanations: each output is one matrix W(x) times its input."""

__version__ = "0.1.0"
