//! Frames of a local log.
