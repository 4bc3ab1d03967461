"""The kernels: for each op an algorithm in Halide and a table of schedules."""
