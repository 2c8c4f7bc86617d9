"""Training loops, checkpoints, run folders and seeding."""
