"""The chaos test's own side: the cluster, what is done to it, the clients' programs, and the checks of what they wrote."""
