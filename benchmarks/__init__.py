"""How long a promotion's commit takes, against a bare `git push` and against a person: `make bench`."""
