"""What predictions are worth, with intervals."""
