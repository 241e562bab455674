"""A GPU's memory, streams and errors, without a framework; which engine uses them is not known here."""
