"""Many runs and rounds one after the other, and what stays of them in memory."""
