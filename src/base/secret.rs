//! Text that nobody should see: passwords, tokens.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

/// Another in every process: nobody can try passwords against what a log shows.
static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// A password or a token. Its text for debugging does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    /// Differs where the secret does: what is built anew after a reload is found by comparing such texts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({:x})", SEED.hash_one(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown_but_told_apart() {
        let (a, b) = (format!("{:?}", Secret::new("abc")), format!("{:?}", Secret::new("abd")));
        assert!(a != b && !a.contains("abc"));
        assert_eq!(a, format!("{:?}", Secret::new("abc")));
    }
}
