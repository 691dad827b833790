"""The commands of `qlog`, one file per verb: each parses, calls once, and renders."""
