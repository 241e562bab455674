"""leptonc.compiler."""
