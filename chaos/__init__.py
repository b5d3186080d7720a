"""The bot killed at every boundary between it and the world, one at a time and in a storm: `make chaos`."""
