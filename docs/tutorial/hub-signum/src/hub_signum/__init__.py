"""Signum for hub: `hub.build("signum", model)`."""
