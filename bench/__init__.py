"""Benchmarks: two sides of one comparison, measured in turns on the same cores in the same minute."""
