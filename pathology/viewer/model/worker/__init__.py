"""What runs in a process of its own, with torch: nothing else of the viewer imports it."""
