"""What gives a slide its score, and what of it each tile explains."""
