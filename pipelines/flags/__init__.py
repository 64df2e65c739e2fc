"""What a person sets: flags, environment, their rules and what is told about them."""
