//! rootcellar-store
