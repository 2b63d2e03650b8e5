//! Frazil's data plane: write-ahead log, flush pipeline, tail, block cache
