"""The driver behind `tests/clients/run`: packages, brokers, the control channel and the report."""
