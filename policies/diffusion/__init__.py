"""LeRobot's DiffusionPolicy in this library: cloning, acting, files."""
