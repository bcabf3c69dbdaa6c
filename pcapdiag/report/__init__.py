"""A Result as text: pure functions of frozen values, without captures, clocks or network.

- `json`: the form that programs read; `render` makes every other form from it
- `html`: the incident report, one file; `figures` lays out its drawings, `templates/` its pages
- `markdown`: one page for a ticket; `terminal`: the story in about thirty lines
- `story`: what all forms say alike: verdict, what to do, what was not examined
- `plain`, `instants`: captured text made harmless, times in UTC
- `redact`: the same Result without addresses
"""
