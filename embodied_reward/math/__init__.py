"""Pure functions on arrays: NumPy and torch only, no files, no global state."""
