//! Time as a component: what expires, ages or waits asks the clock that it was given, so that a test can turn it.

use std::fmt;
use std::time::SystemTime;

/// Tells the time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> SystemTime;
}

/// The operating system's clock. Only a program makes one; libraries are given it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}
