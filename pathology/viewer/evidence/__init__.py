"""Explanations, and differences of two, as numbers: ledgers, maps and tiles."""
