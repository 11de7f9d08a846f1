"""What `fedgate new task` writes: a whole task, and its tests, to be changed."""
