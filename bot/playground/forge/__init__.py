"""Simulated git hosts: GitHub and GitLab, each in front of a real bare repository."""
