//! rootcellar-reapi
