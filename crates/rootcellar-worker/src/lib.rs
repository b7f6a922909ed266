//! rootcellar-worker
