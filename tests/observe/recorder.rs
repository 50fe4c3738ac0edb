//! A subscriber that keeps all it is told, at every level.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, Once, PoisonError},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

/// An event, or a span that was opened.
#[derive(Debug, Clone)]
pub struct Told {
    pub target: String,
    pub level: Level,
    /// The message of an event, or the name of a span.
    pub name: String,
    pub fields: Fields,
    /// The span that it is in.
    pub parent: Option<u64>,
}

pub type Fields = BTreeMap<&'static str, String>;

impl Told {
    pub fn number(&self, field: &str) -> u64 {
        self.fields[field].parse().unwrap()
    }
}

#[derive(Default)]
pub struct Log {
    pub events: Vec<Told>,
    /// By their ids, counted from 1.
    pub spans: Vec<Told>,
    /// How often any was entered and not left.
    pub entered: i64,
}

static LOG: Mutex<Log> = Mutex::new(Log { events: Vec::new(), spans: Vec::new(), entered: 0 });

thread_local! {
    static STACK: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

fn log() -> MutexGuard<'static, Log> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps other tests away, who would be heard as well.
pub struct Alone(#[expect(dead_code, reason = "it is held")] MutexGuard<'static, ()>);

pub fn alone() -> Alone {
    static ALONE: Mutex<()> = Mutex::new(());
    static INSTALL: Once = Once::new();
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    INSTALL.call_once(|| tracing::subscriber::set_global_default(Recorder).unwrap());
    Alone(alone)
}

impl Alone {
    /// What was told while `work` was done.
    pub fn record(&self, work: impl FnOnce()) -> Log {
        *log() = Log::default();
        work();
        std::mem::take(&mut *log())
    }
}

struct Recorder;

impl Subscriber for Recorder {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Visitor::default();
        span.record(&mut fields);
        let parent = span.parent().map(Id::into_u64).or_else(current);
        let mut log = log();
        log.spans.push(told(span.metadata(), span.metadata().name().into(), fields.0, parent));
        Id::from_u64(log.spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut fields = Visitor::default();
        values.record(&mut fields);
        log().spans[usize::try_from(span.into_u64()).unwrap() - 1].fields.extend(fields.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Visitor::default();
        event.record(&mut fields);
        let message = fields.0.remove("message").unwrap_or_default();
        let parent = event.parent().map(Id::into_u64).or_else(current);
        log().events.push(told(event.metadata(), message, fields.0, parent));
    }

    fn enter(&self, span: &Id) {
        STACK.with_borrow_mut(|stack| stack.push(span.into_u64()));
        log().entered += 1;
    }

    fn exit(&self, span: &Id) {
        STACK.with_borrow_mut(|stack| assert_eq!(stack.pop(), Some(span.into_u64()), "left where it was not entered"));
        log().entered -= 1;
    }
}

fn current() -> Option<u64> {
    STACK.with_borrow(|stack| stack.last().copied())
}

fn told(metadata: &Metadata<'_>, name: String, fields: Fields, parent: Option<u64>) -> Told {
    Told { target: metadata.target().into(), level: *metadata.level(), name, fields, parent }
}

#[derive(Default)]
struct Visitor(Fields);

impl Visit for Visitor {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.into());
    }
}
