"""Further maps over a slide's map: how far members are apart, and nulls."""
