"""A fake Slack workspace: as strict as Slack where Slack is strict, over real HTTP and websockets."""
