"""Slide-level explanations: exact maps, their ledger, and pages to look at."""
