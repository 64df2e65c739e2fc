"""Programs a person starts."""
