//! The thread that makes a job's masks, and its handle.
//!
//! The thread has a stack large enough for the deepest schema that the limits
//! let pass, and whatever panics in it ends it alone: its handle then says so
//! and gives empty masks. Deliberately absent: what a mask is.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::grammar::Source;
use super::state::{State, reason};
use super::{ConstraintError, Mask, Vocabulary};

/// Address space of a worker's stack; what isn't touched takes no memory.
const STACK_BYTES: usize = 64 << 20;

/// The masks of one job, made by a thread that ends with this.
#[derive(Debug)]
pub(crate) struct Masks {
    source: Arc<Source>,
    vocabulary: Arc<Vocabulary>,
    worker: Option<Worker>,
    /// Tokens of the answer that were read.
    tokens: Vec<u32>,
    /// A token that the worker knows already, before it is read.
    ahead: Option<u32>,
    /// The mask behind the last token that the worker knows, once it is here.
    mask: Option<Mask>,
}

#[derive(Debug)]
struct Worker {
    tokens: SyncSender<u32>,
    /// One for the beginning, and one for each token.
    masks: Receiver<Mask>,
}

impl Masks {
    /// Starts a worker, and waits until it has read the constraint.
    pub(crate) fn start(
        source: Arc<Source>,
        vocabulary: &Arc<Vocabulary>,
    ) -> Result<Self, ConstraintError> {
        let worker = Worker::start(&source, vocabulary)?;
        let vocabulary = Arc::clone(vocabulary);
        Ok(Self {
            source,
            vocabulary,
            worker: Some(worker),
            tokens: vec![],
            ahead: None,
            mask: None,
        })
    }

    /// The mask of the next token.
    pub(crate) fn mask(&mut self) -> &Mask {
        let worker = self.worker.as_ref();
        self.mask.get_or_insert_with(|| {
            let made = worker.and_then(|worker| worker.masks.recv().ok());
            made.unwrap_or_else(|| {
                let reason = "the library broke".into();
                Mask::empty(Some(ConstraintError::Broken { reason }))
            })
        })
    }

    /// Says which token will be read next, so that the mask behind it can be begun.
    pub(crate) fn expect(&mut self, token: u32) {
        if self.ahead.is_none() {
            self.tell(token);
            self.ahead = Some(token);
        }
    }

    /// Takes the next token of the answer.
    pub(crate) fn read(&mut self, token: u32) {
        match self.ahead.take() {
            Some(expected) if expected == token => self.tokens.push(token),
            Some(_) => {
                let mut tokens = std::mem::take(&mut self.tokens);
                tokens.push(token);
                self.restart(&tokens);
            }
            None => {
                self.tell(token);
                self.tokens.push(token);
            }
        }
    }

    /// Goes back to where the answer has these tokens.
    pub(crate) fn restart(&mut self, tokens: &[u32]) {
        self.worker = Worker::start(&self.source, &self.vocabulary).ok();
        (self.mask, self.ahead) = (None, None);
        for &token in tokens {
            self.tell(token);
        }
        self.tokens = tokens.to_vec();
    }

    fn tell(&mut self, token: u32) {
        // The mask before a token is made before the token is taken, always.
        self.mask();
        self.mask = None;
        if let Some(worker) = &self.worker {
            // A worker that broke is found when its mask is missing.
            let _ = worker.tokens.send(token);
        }
    }
}

impl Worker {
    fn start(source: &Arc<Source>, vocabulary: &Arc<Vocabulary>) -> Result<Self, ConstraintError> {
        let broken = |reason: String| ConstraintError::Broken { reason };
        // Tokens and masks take turns; nobody ever waits to send.
        let (tokens, to_read) = sync_channel(1);
        let (to_send, masks) = sync_channel(1);
        let (ready, is_ready) = sync_channel(1);
        let (source, vocabulary) = (Arc::clone(source), Arc::clone(vocabulary));
        let work = move || match State::new(&source, &vocabulary) {
            Ok(state) => {
                let told = ready.send(Ok(()));
                drop((ready, source, vocabulary));
                if told.is_ok() {
                    run(state, &to_read, &to_send);
                }
            }
            // Nobody is left to hear it if this fails.
            Err(error) => drop(ready.send(Err(error))),
        };
        thread::Builder::new()
            .name("constraint".into())
            .stack_size(STACK_BYTES)
            .spawn(work)
            .map_err(|error| broken(reason(&error.to_string())))?;
        match is_ready.recv() {
            Ok(made) => made.map(|()| Self { tokens, masks }),
            Err(_) => Err(broken("the library broke".into())),
        }
    }
}

/// Makes masks until nobody asks any more.
fn run(mut state: State, tokens: &Receiver<u32>, masks: &SyncSender<Mask>) {
    let mut mask = state.mask();
    loop {
        if masks.send(mask.clone()).is_err() {
            return;
        }
        let Ok(token) = tokens.recv() else { return };
        let trouble = state.push(token, &mask);
        mask = state.mask();
        mask.trouble = mask.trouble.or(trouble);
    }
}
