"""Limpid on Ray, and nothing but Ray: it carries out what the rules in `pipeline` decide."""
