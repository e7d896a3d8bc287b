"""One piece of work for each slide of a cohort, on one machine or on many."""
