//! Panics of tasks: a runtime swallows them, and a broker may go on without what the task did.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    /// The first panic on this thread, which runs one world at a time.
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Forgets what was seen on this thread, and sees from now on.
pub(super) fn forget() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            FIRST.with(|first| first.borrow_mut().get_or_insert_with(|| panic.to_string()).len());
            before(panic);
        }));
    });
    FIRST.with(|first| first.borrow_mut().take());
}

/// The first panic since, if there was any.
pub(super) fn seen() -> Option<String> {
    FIRST.with(|first| first.borrow().clone())
}

/// As [`seen`], and forgets it.
pub(super) fn take() -> Option<String> {
    FIRST.with(|first| first.borrow_mut().take())
}
