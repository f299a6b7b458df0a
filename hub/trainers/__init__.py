"""Integrations with trainers, each imported only if it is used; the core does not import them."""
