"""Trained runs, loaded from their folders: their tasks, and the scores of slides they explain."""
