"""What a viewer can show, each thing under an opaque id."""
