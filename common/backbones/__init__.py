"""Networks, each named after the original it equals, and a registry of their names."""
