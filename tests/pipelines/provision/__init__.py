"""provision, destination by destination."""
