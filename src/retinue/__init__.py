"""retinue: what every customer is worth, who is leaving, who is alike, and what to do."""
