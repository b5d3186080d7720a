"""The rules of promotion: the standard library alone, and no input or output."""
