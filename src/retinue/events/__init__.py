"""What happened: reading, cleaning, identifying and storing events; the only room that sees raw tables."""
