//! Tests over all messages at once: golden bytes, tampering, canonical form,
//! bounds, and the specification page. They see the crate from inside, so that
//! they can write what [`Message::encode`](crate::Message::encode) refuses to.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod bounds;
mod canonical;
mod frames;
mod golden;
mod hostile;
mod samples;
mod signing;
mod spec;
