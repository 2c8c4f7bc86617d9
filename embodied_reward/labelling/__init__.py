"""Ask people (or the simulator) which episode is better, and keep every answer."""
