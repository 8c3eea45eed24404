"""Put a backbone of the catalog into a detector's config, with all that follows."""
