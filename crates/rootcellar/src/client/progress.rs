//! A line on the terminal that shows how far a long transfer is.
//!
//! It is drawn only where a person looks, and only once the transfer turns out to be long.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rootcellar_grpc::client::Traffic;
use tokio::task::JoinHandle;

/// How long nothing is shown.
const SHOWN_AFTER: Duration = Duration::from_millis(500);

const REDRAWN_AFTER: Duration = Duration::from_millis(100);

/// Shows progress until it is dropped, and leaves no trace.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    task: JoinHandle<()>,
}

impl Progress {
    /// Shows what is uploaded. How much that will be, nobody knows: a part of it may be there already.
    pub(super) fn uploading(traffic: Arc<Traffic>) -> Self {
        let bar = hidden(
            ProgressBar::no_length(),
            "{spinner} uploading {bytes}, {bytes_per_sec} {msg}",
        );
        Self::start(bar, move |bar| bar.set_position(traffic.sent_bytes()))
    }

    /// Shows what is downloaded of `total_bytes`.
    pub(super) fn downloading(traffic: Arc<Traffic>, total_bytes: u64) -> Self {
        let template = "{spinner} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        let bar = hidden(ProgressBar::new(total_bytes), template);
        Self::start(bar, move |bar| bar.set_position(traffic.received_bytes()))
    }

    /// Shows what is waited for, and for how long.
    pub(super) fn waiting() -> Self {
        Self::start(hidden(ProgressBar::no_length(), "{spinner} {msg}, {elapsed}"), |_| {})
    }

    fn start(bar: ProgressBar, refresh: impl Fn(&ProgressBar) + Send + 'static) -> Self {
        let drawn = bar.clone();
        let task = tokio::spawn(async move {
            tokio::time::sleep(SHOWN_AFTER).await;
            drawn.set_draw_target(ProgressDrawTarget::stderr());
            loop {
                refresh(&drawn);
                drawn.tick();
                tokio::time::sleep(REDRAWN_AFTER).await;
            }
        });
        Self { bar, task }
    }

    /// Says what is going on.
    pub(super) fn say(&self, message: impl Into<String>) {
        self.bar.set_message(message.into());
    }

    /// Writes to the terminal with the line out of the way.
    pub(super) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }
}

fn hidden(bar: ProgressBar, template: &str) -> ProgressBar {
    bar.set_draw_target(ProgressDrawTarget::hidden());
    let style = ProgressStyle::with_template(template).expect("the templates are part of this program");
    bar.with_style(style)
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}
