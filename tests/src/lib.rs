//! rootcellar-tests
