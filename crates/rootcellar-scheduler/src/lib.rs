//! Who runs what, when.
//!
//! [`Scheduler`] is a state machine: it is told what happened and when, and it answers with [`Effect`]s. It does no I/O and
//! reads no clock, so a seed replays any history exactly. [`Dispatcher`] is the asynchronous shell around one: the front end
//! submits and watches operations there, and workers reach it through [`WorkSource`].
//!
//! ```text
//!   Execute ──► operation ─┐                      ┌─► worker (lease) ──► response ─┐
//!   Execute ──► operation ─┼─► execution ─► queue ┤                                ├─► every operation completes
//!   Execute ──► operation ─┘   (one action)  ▲    └─► worker lost ─────────────────┘
//!                                            └────────────┘ put back, a few times
//! ```
//!
//! An *operation* is one client's request and has a name. An *execution* is the work, shared by all operations that ask for the
//! same action while it is in flight. A *lease* is one attempt of one worker at an execution. Cancelling an operation ends
//! that operation; the execution ends only with its last operation.

mod clock;
mod deadlines;
mod dispatcher;
mod error;
mod executions;
mod operation;
mod operations;
mod outcome;
mod platform;
mod policy;
mod queues;
mod scheduler;
mod session;
mod task;
mod watch;
mod work_source;
mod workers;

pub use clock::{Clock, MonotonicClock, Time};
pub use dispatcher::{Dispatcher, OperationPage};
pub use error::{Error, Result};
pub use operation::{OperationStage, OperationState};
pub use outcome::failed;
pub use platform::{Offer, Requirements, Unsatisfiable};
pub use policy::Policy;
pub use scheduler::{Counts, Effect, Scheduler};
pub use task::{Lease, LeaseId, Task, Ticket, WorkerId, WorkerSpec};
pub use watch::OperationWatch;
pub use work_source::{Assignment, WorkSession, WorkSource};
