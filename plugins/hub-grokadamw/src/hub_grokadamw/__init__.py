"""GrokAdamW for hub: `hub.build("grokadamw", model)`."""
