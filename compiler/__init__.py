"""From a model's source to a finished artifact, and all that is asked about one on the way; nothing that runs at deploy time."""
