//! Frazil: the composition root.
