"""Networks whose values are stored in chosen number formats: as graphs, and as modules that can be trained."""
