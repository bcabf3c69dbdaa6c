"""One fault a file; the id of a rule is its file name with dashes. README.md is the catalogue."""
