"""Reading tables into a sorted, memory-mapped column store, and what is fitted on it."""
