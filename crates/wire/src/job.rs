//! The job conversation, [`JOB_PROTOCOL`](crate::JOB_PROTOCOL): one stream a job.
//!
//! The router writes [`RouterFrame`]s: an open with the signed [`Offer`], then
//! perhaps a cancel, and after the receipt perhaps a challenge. The provider
//! writes [`ProviderFrame`]s: accepted, tokens with the running commitment,
//! the delivered [`Receipt`], openings; or a failure, which ends the job.
//! Which frame may follow which is the business of the state machines in `job`
//! the crate; here each frame stands for itself.

mod class;
mod failure;
mod frames;
mod offer;
mod opening;
mod receipt;
mod sampling;

pub use class::Class;
pub use failure::{Failure, FailureCode};
pub use frames::{
    Accepted, Commitment, Delivered, LogProof, Progress, ProviderFrame, RouterFrame, TokenLogprobs,
    Tokens,
};
pub use offer::{ChatMessage, Level, Offer, Pooling, Prompt, client_nonce_hash};
pub use opening::{Challenge, Drawn, Leaf, Opening, Openings};
pub use receipt::{Receipt, Stop};
pub use sampling::{Constraint, Form, LogitBias, Sampling};
