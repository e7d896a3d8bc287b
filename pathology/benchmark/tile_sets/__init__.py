"""Labelled tiles whose evidence is known, to train on and to measure maps with."""
