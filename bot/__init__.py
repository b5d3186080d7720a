"""promote-bot: one container image through dev, stage and prod, from Slack."""
