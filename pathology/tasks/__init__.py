"""What can be trained, how it is measured, and reading it back."""
