"""A plugin for an optimizer that is installed: its files, written from a class's signature."""
