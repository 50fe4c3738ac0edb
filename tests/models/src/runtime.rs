//! What stands for `tokio::runtime`: threads for work that blocks, which take it up in the order in which it was given.

use loom::{
    sync::{Condvar, Mutex, MutexGuard},
    thread::JoinHandle,
};
use real::sync::Mutex as RealMutex;

use crate::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

static CURRENT: RealMutex<Option<Handle>> = RealMutex::new(None);

#[derive(Clone)]
pub(crate) struct Handle(Arc<Pool>);

struct Pool {
    queue: Mutex<Queue>,
    changed: Condvar,
}

struct Queue {
    tasks: VecDeque<Box<dyn FnOnce() + Send>>,
    is_open: bool,
}

impl Handle {
    /// The one that was entered, whatever the thread.
    pub(crate) fn try_current() -> Result<Self, ()> {
        CURRENT.lock().unwrap().clone().ok_or(())
    }

    /// As Tokio does it: what is given to a runtime that is shut down is dropped at once.
    pub(crate) fn spawn_blocking(&self, task: impl FnOnce() + Send + 'static) {
        let mut queue = self.0.queue();
        if queue.is_open {
            queue.tasks.push_back(Box::new(task));
        }
        drop(queue);
        self.0.changed.notify_one();
    }
}

impl Pool {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap()
    }

    fn work(&self) {
        loop {
            let mut queue = self.queue();
            while queue.is_open && queue.tasks.is_empty() {
                queue = self.changed.wait(queue).unwrap();
            }
            let (task, is_open) = (queue.tasks.pop_front(), queue.is_open);
            drop(queue);
            let Some(task) = task else { return };
            // Tokio catches what a task does when it is dropped, too.
            let _ = catch_unwind(AssertUnwindSafe(|| if is_open { task() } else { drop(task) }));
        }
    }
}

pub(crate) struct Runtime {
    handle: Handle,
    threads: Vec<JoinHandle<()>>,
}

impl Runtime {
    pub(crate) fn new(threads: usize) -> Self {
        let queue = Queue { tasks: VecDeque::new(), is_open: true };
        let handle = Handle(Arc::new(Pool { queue: Mutex::new(queue), changed: Condvar::new() }));
        let spawn = |_| {
            let pool = handle.0.clone();
            loom::thread::spawn(move || pool.work())
        };
        let threads = (0..threads).map(spawn).collect();
        Self { handle, threads }
    }

    /// A runtime in which this run is from now on, until it is shut down.
    pub(crate) fn entered(threads: usize) -> Self {
        let this = Self::new(threads);
        *CURRENT.lock().unwrap() = Some(this.handle());
        this
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Lets each thread come to the end of what it is at, and drops what it has not begun.
    pub(crate) fn shut_down(self) {
        *CURRENT.lock().unwrap() = None;
        self.handle.0.queue().is_open = false;
        self.handle.0.changed.notify_all();
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}
