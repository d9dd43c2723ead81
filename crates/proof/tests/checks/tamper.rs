//! No field of a statement, a leaf or a path can be altered unseen.
