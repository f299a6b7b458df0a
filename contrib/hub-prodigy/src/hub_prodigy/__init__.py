"""Prodigy for hub: `hub.build("prodigy", model)`."""
