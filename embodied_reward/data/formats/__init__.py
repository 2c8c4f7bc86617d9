"""Other people's demonstrations, read as LeRobot's columns: zarr, HDF5, videos."""
