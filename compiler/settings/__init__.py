"""What the user asked for, from flags, file and defaults; not what follows from it."""
