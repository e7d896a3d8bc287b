"""What studies measured, as one page: intervals, tests, ranks and pictures."""
