"""Results in a folder or in a store by URL, complete or not there."""
