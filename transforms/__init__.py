"""Beam transforms that read the Grantex event feed and keep destinations complete."""
