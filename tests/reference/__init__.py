"""What a policy means, said a second time and as plainly as possible, to judge the compiler by."""
