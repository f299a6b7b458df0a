"""Muon for hub: `hub.build("muon", model)`."""
