//! Setting up `tracing`: text for people, JSON for machines, level by option and environment.
