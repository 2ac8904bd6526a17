"""The label spaces of the papers' sets, one table a set."""
