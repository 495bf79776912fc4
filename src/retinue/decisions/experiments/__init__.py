"""Did it work: designing, assigning and analysing randomised experiments, and learning effects from them."""
