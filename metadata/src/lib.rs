//! Frazil's control plane: the replicated state machine, its quorum, the image
