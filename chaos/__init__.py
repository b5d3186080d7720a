"""The bot killed at every boundary between it and the world, one at a time: `make chaos`."""
