//! What stands for `std::thread`. A run has room for five threads in all, the first of them included.

use real::{
    any::Any,
    marker::PhantomData,
    num::NonZeroUsize,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use crate::{
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

static CORES: AtomicUsize = AtomicUsize::new(1);
static NONE_TO_BE_HAD: AtomicBool = AtomicBool::new(false);

pub(crate) fn set_available_parallelism(cores: usize) {
    CORES.store(cores, Relaxed);
}

/// Makes [`Builder::spawn_scoped`] fail from now on, or no longer.
pub(crate) fn set_none_to_be_had(none: bool) {
    NONE_TO_BE_HAD.store(none, Relaxed);
}

pub(crate) fn available_parallelism() -> io::Result<NonZeroUsize> {
    NonZeroUsize::new(CORES.load(Relaxed)).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Of a thread that comes to its end even if its work panics.
type JoinHandle = loom::thread::JoinHandle<Result<(), Box<dyn Any + Send>>>;

pub(crate) struct Scope<'scope, 'env: 'scope> {
    threads: Mutex<Vec<JoinHandle>>,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

pub(crate) fn scope<'env, T>(work: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T) -> T {
    let scope = Scope { threads: Mutex::new(Vec::new()), scope: PhantomData, env: PhantomData };
    let result = catch_unwind(AssertUnwindSafe(|| work(&scope)));
    let mut has_panicked = false;
    loop {
        let thread = scope.threads.lock().unwrap().pop();
        let Some(thread) = thread else { break };
        has_panicked |= !matches!(thread.join(), Ok(Ok(())));
    }
    match result {
        Ok(_) if has_panicked => resume_unwind(Box::new("a scoped thread panicked")),
        Ok(value) => value,
        Err(panic) => resume_unwind(panic),
    }
}

pub(crate) struct Builder;

impl Builder {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn name(self, _: String) -> Self {
        self
    }

    pub(crate) fn spawn_scoped<'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        work: impl FnOnce() + Send + 'scope,
    ) -> io::Result<()> {
        if NONE_TO_BE_HAD.load(Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let work: Box<dyn FnOnce() + Send + 'scope> = Box::new(work);
        // SAFETY: the work is done, and dropped, before its thread can be joined, which `scope` does before it returns or goes on with
        // a panic.
        #[allow(unsafe_code, reason = "loom has no scoped threads")]
        let work: Box<dyn FnOnce() + Send> = unsafe { mem::transmute(work) };
        let thread = loom::thread::Builder::new().spawn(move || catch_unwind(AssertUnwindSafe(work)))?;
        scope.threads.lock().unwrap().push(thread);
        Ok(())
    }
}
