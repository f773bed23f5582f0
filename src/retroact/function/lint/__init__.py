"""What in the code of functions keeps them from doing the same again, found by reading them: nothing is executed."""
