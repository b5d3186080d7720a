"""Promotions as Slack messages: pure, whole, and safe to show whatever is in them."""
