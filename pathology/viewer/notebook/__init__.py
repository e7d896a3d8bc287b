"""The viewer in a notebook's cell."""
