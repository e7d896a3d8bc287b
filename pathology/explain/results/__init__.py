"""What is written of an explanation, and read back."""
