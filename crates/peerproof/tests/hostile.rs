//! A hostile network around real nodes: one liar at a time, and after each of them honest work.
//!
//! Every attack is made with the crates below this one and with raw bytes, on
//! 127.0.0.1, against nodes in this process that serve the real default model.
//! An attack on a provider passes if the provider answers it as the protocol
//! says and then serves an honest router; an attack on a router passes if the
//! answer is the honest one or an error, never a wrong answer called verified.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

mod hostile {
    mod auditor;
    mod cells;
    mod challenge;
    mod doubt;
    mod fake;
    mod provider;
    mod provider_load;
    mod raw;
    mod router;
    mod stage;
}
