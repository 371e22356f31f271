//! Whether text may be coloured.

use std::io::IsTerminal;

/// Whether what is written to `stream` may be coloured: it is a terminal, and nobody has set `NO_COLOR` (no-color.org).
pub fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
