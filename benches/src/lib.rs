//! rootcellar-benches
