//! rootcellar-scheduler
