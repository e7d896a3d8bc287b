"""The tests, as a package: another of this name may be installed."""
