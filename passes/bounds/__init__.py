"""Between which numbers a value lies, whatever the input; ranges that were observed are `passes.ranges`."""
