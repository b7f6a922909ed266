//! rootcellar-proto
