//! Mistakes that a test can switch on, to see whether the simulator's checkers find them.
//!
//! The hooks are compiled into test builds only: they take the feature
//! `planted-bugs`, which no crate may enable but as a dependency of its tests
//! (`cargo xtask tidy` holds that), and a build with debug assertions. Anywhere
//! else [`planted`] is the constant `false`. A mistake holds for one thread.

/// Every mistake of this crate that can be switched on.
#[cfg(all(feature = "planted-bugs", debug_assertions))]
pub const BUGS: [&str; 3] =
    ["acknowledged before it is synced", "signed before it is synced", "a path of another entry"];

#[cfg(all(feature = "planted-bugs", debug_assertions))]
thread_local! {
    static BUG: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

/// Makes this mistake on this thread from here on; `None` makes no more.
#[cfg(all(feature = "planted-bugs", debug_assertions))]
pub fn plant(bug: Option<&'static str>) {
    BUG.set(bug);
}

/// Whether this mistake is to be made.
#[cfg(all(feature = "planted-bugs", debug_assertions))]
pub(crate) fn planted(bug: &'static str) -> bool {
    debug_assert!(BUGS.contains(&bug), "{bug:?} is not in the list");
    BUG.get() == Some(bug)
}

/// No mistakes are made.
#[cfg(not(all(feature = "planted-bugs", debug_assertions)))]
pub(crate) const fn planted(_bug: &'static str) -> bool {
    false
}
