"""Regions that people drew on slides, whatever the program they drew them with."""
