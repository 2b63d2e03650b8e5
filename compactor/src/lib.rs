//! Frazil's cold path: retention and collection
