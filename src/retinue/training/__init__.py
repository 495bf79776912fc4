"""Training networks: steps, averages, early stopping and checkpoints. No maths."""
