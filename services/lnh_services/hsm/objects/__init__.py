"""Objects: store and make them, and decide what their attributes and the policy allow."""
