"""The chaos test's own side: the cluster, what is done to it, the clients' programs, the checks of what they wrote."""
