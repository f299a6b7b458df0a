"""What a finished optimizer does while it trains, besides what its class does."""
