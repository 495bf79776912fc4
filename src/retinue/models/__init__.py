"""What will happen: statistical models in plain torch."""
