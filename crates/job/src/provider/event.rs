//! What a desk is told, and what it asks for.

use peerproof_identity::PeerId;
use peerproof_wire::{
    Challenge, Commitment, Digest, Failure, LogProof, Offer, Openings, ProviderFrame, Receipt,
    RouterFrame, Signed, Stop, TokenLogprobs, WireError,
};

use super::Draft;
use crate::time::Millis;

/// One stream, named by the driver; a name is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// A token that the engine drew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The token.
    pub token: u32,
    /// What it adds to the text, as a function of the tokens alone; with the
    /// last token, everything that was held back until then.
    pub text: String,
    /// The transcript up to the leaf that drew this token. Due whenever the
    /// answer's length becomes a multiple of [`COMMIT_EVERY`](crate::limits::COMMIT_EVERY).
    pub commitment: Option<Commitment>,
    /// How likely it was; there if the offer asks for it.
    pub logprobs: Option<TokenLogprobs>,
}

/// What a receipt says of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Tokens of the answer, resumed ones included.
    pub tokens: u32,
    /// Why it ends.
    pub stop: Stop,
    /// Hash of its token ids.
    pub output_hash: Digest,
    /// Hash of its text and of what is reported beside it.
    pub text_hash: Digest,
    /// Root over the keys and values.
    pub kv_root: Digest,
    /// Root of the transcript.
    pub transcript_root: Digest,
    /// Leaves under the root: one for each token of prompt and answer.
    pub leaves: u32,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum In {
    /// A peer opened a stream.
    Opened {
        /// Its name from here on.
        stream: StreamId,
        /// Whose connection it is.
        peer: PeerId,
    },
    /// A frame came.
    Frame(StreamId, RouterFrame),
    /// Bytes came that are no frame.
    Unreadable(StreamId, WireError),
    /// The stream ended.
    Closed(StreamId),
    /// A frame of this stream was written; every [`Out::Send`] is answered by one.
    Sent(StreamId),
    /// Answer to [`Out::Prepare`]: tokens of the prompt.
    Prepared(StreamId, u32),
    /// So many tokens were read, of the prompt and then of the beginning to resume, after
    /// [`Out::Run`].
    Read(StreamId, u32),
    /// Tokens that are ready, after [`Out::Run`].
    Steps {
        /// Whose.
        stream: StreamId,
        /// Index of the first in the answer. The length of `resume`, unless the
        /// model departs from it: then the first index at which it does.
        start: u32,
        /// The tokens.
        steps: Vec<Step>,
    },
    /// The answer is complete; all its steps were reported.
    Finished(StreamId, Ended),
    /// The engine will not or can not do what [`Out::Prepare`] or [`Out::Run`] asked.
    Refused(StreamId, Failure),
    /// Answer to [`Out::Issue`]: signed, and safe in the log.
    Logged {
        /// Whose.
        stream: StreamId,
        /// The receipt.
        receipt: Signed<Receipt>,
        /// Its place in the log.
        proof: LogProof,
    },
    /// Answer to [`Out::Issue`]: the log did not take it. No receipt can follow,
    /// because nobody knows whether this number is taken.
    LogFailed {
        /// Whose.
        stream: StreamId,
        /// Why.
        why: String,
    },
    /// Answer to [`Out::OpenLeaves`].
    LeavesOpened(StreamId, Result<Openings, String>),
    /// This peer was barred: its jobs are dropped, those that wait too.
    Barred(PeerId),
    /// The moment of the last [`Out::SetTimer`] has come. Harmless at other times.
    Timer,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Out {
    /// Write a frame; report [`In::Sent`] when that is done.
    Send(StreamId, ProviderFrame),
    /// Close the stream after what was sent. Nothing more of it is of interest.
    Close(StreamId),
    /// Tokenize the prompt.
    Prepare {
        /// For whom.
        stream: StreamId,
        /// The request.
        offer: Signed<Offer>,
    },
    /// Compute the answer from its first token, and report those after `resume`.
    Run {
        /// For whom.
        stream: StreamId,
        /// The request.
        offer: Signed<Offer>,
        /// Tokens that another provider delivered already.
        resume: Vec<u32>,
    },
    /// Drop what is being prepared, run or opened for this stream.
    Stop(StreamId),
    /// Complete, sign, append to the log and sync. One at a time: the next
    /// comes after the answer to this one.
    Issue {
        /// For whom.
        stream: StreamId,
        /// All but the time.
        draft: Draft,
    },
    /// Compute a job again and open the challenged leaves.
    OpenLeaves {
        /// For whom.
        stream: StreamId,
        /// All it takes.
        question: Box<LeavesQuestion>,
    },
    /// Send [`In::Timer`] at this moment; replaces the one before.
    SetTimer(Millis),
}

/// The contents of [`Out::OpenLeaves`].
#[derive(Clone, Debug)]
pub struct LeavesQuestion {
    /// The request.
    pub offer: Signed<Offer>,
    /// What was signed.
    pub receipt: Signed<Receipt>,
    /// The answer.
    pub tokens: Vec<u32>,
    /// What is asked; its nonce is the offer's.
    pub challenge: Challenge,
}
