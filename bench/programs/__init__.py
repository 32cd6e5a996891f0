"""The programs that are measured: applications of each framework, and loops without any."""
