"""Reading events back from where they were kept."""
