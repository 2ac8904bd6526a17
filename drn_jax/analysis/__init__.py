"""Pure functions over stage tables."""
