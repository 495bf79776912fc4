"""A network that has seen thousands of simulated bases, and reads one that it has never seen."""
