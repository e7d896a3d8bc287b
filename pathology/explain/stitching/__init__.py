"""Contributions of tiles on one map whose sum is kept."""
