"""Training, loading and measuring of the networks of studies."""
