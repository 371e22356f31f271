//! The health checker of one endpoint: probe, count, tell, wait.
