"""Bridges to trainers, each imported only where it is used; the core knows none of them."""
