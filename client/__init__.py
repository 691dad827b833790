"""The client `qlog`: lists, shows, compares and watches experiments; submits and cancels jobs. Runs without torch."""
