"""The machinery of the differential proof: codec, connections, normalisation, comparison."""
