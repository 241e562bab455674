"""What each verb of the command line takes and prints; what it does stands in the rooms below."""
