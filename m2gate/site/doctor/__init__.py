"""What is wrong with an installation: one small check for each known trap, none of which changes anything."""
