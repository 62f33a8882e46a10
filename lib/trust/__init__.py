"""Numbers that mean what they say: one module for each question that notebook 06 asks of the result."""
