//! Every metric's name and help text, in one place.
