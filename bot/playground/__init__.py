"""The product without its outside world: simulated Slack and Argo CD over a real sample repository."""
