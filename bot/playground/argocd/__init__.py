"""A simulated Argo CD: a clock-driven model of its two loops over a real repository, behind its REST API."""
