"""From a user's bug report to a verdict: what it says, what that shows, what a guest shows, and the answer."""
