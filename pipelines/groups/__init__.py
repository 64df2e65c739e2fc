"""The parameters, a file a group: each declared once, and for a destination also what is made of them."""
