//! rootcellar-stage
