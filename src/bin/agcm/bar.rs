//! Progress on the terminal, with rate and time left: on standard error, and only where somebody looks.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use agcm::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// A bar that vanishes when it is dropped.
#[derive(Debug)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    pub(crate) fn new(hidden: bool) -> Self {
        if hidden || !io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::no_length().with_style(style("{spinner} {bytes}  {bytes_per_sec}  {elapsed}"));
        // So that it is seen to live, even while nothing comes.
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// Moves it on.
    pub(crate) fn callback(&self) -> impl Fn(Progress) + Send + Sync + use<> {
        let bar = self.0.clone();
        move |progress| {
            if let Some(total) = progress.total {
                if bar.length() != Some(total) {
                    bar.set_length(total);
                    bar.set_style(style(
                        "{percent:>3} % [{wide_bar}] {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left",
                    ));
                }
            }
            bar.set_position(progress.done);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}
