//! From text to plan: sources and includes, the schema, the compiler, diagnostics. Opens no socket.

pub mod plan;
