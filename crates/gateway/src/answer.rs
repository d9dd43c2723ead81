//! One request for an answer, from admission to its end.
//!
//! [`Running::start`] takes a slot for every choice and starts the jobs; the
//! events of all choices then come out of [`Running::next`] one by one.
//! Whoever holds the `Running` holds the jobs: dropping it, because the client
//! closed its socket or because one choice failed, cancels them and frees the
//! slots. How the answer ended is counted once, on the way out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use futures::stream::{BoxStream, SelectAll};
use futures::{StreamExt, stream};
use peerproof::client::{AnswerEvent, AskError, JobSpec, Outcome, TokenLogprobs};
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::app::App;
use crate::error::ApiError;
use crate::metrics::Ending;

const BUSY_RETRY_MS: u64 = 1_000;

/// What one choice reported; `None` is its end.
type Tagged = (usize, Option<Result<AnswerEvent, AskError>>);

/// The next thing that happens to an answer.
#[derive(Debug)]
pub(crate) enum Next {
    /// So many tokens of the prompt, of so many, are read.
    Reading(u32, u32),
    /// A choice accepted by a provider.
    Started(usize),
    /// Text of a choice, never empty, and the reports of its tokens that came
    /// since the text before.
    Text(usize, String, Vec<TokenLogprobs>),
    /// A choice is complete and has passed its checks; with the reports of
    /// tokens that no text came after.
    Done(usize, Box<Outcome>, Vec<TokenLogprobs>),
    /// Nothing for as long as was allowed.
    Silence,
    /// The whole answer has failed.
    Failed(ApiError),
}

/// The jobs of one request.
pub(crate) struct Running {
    events: SelectAll<BoxStream<'static, Tagged>>,
    unfinished: Vec<bool>,
    /// Reports of each choice that wait for text.
    reports: Vec<Vec<TokenLogprobs>>,
    stopping: watch::Receiver<bool>,
    prompt_param: &'static str,
    record: Record,
    _slots: Slots,
}

/// Places for jobs that run at once; given back when the last holder drops them.
pub(crate) type Slots = Arc<OwnedSemaphorePermit>;

/// Takes a slot for each of so many jobs.
///
/// # Errors
/// Status 429 without that many free.
pub(crate) fn admit(app: &App, jobs: usize) -> Result<Slots, ApiError> {
    let slots = Arc::clone(&app.slots).try_acquire_many_owned(jobs as u32);
    slots.map(Arc::new).map_err(|_| ApiError::too_many(app.config.max_in_flight, BUSY_RETRY_MS))
}

impl Running {
    /// Admits the request and starts all its jobs.
    ///
    /// # Errors
    /// Status 429 without a free slot, or what the first failing job says.
    pub(crate) async fn start(
        app: Arc<App>,
        jobs: Vec<JobSpec>,
        prompt_param: &'static str,
    ) -> Result<Running, ApiError> {
        let slots = admit(&app, jobs.len())?;
        Self::admitted(app, slots, jobs, prompt_param).await
    }

    /// Starts jobs for which `slots` were taken.
    ///
    /// # Errors
    /// What the first failing job says.
    pub(crate) async fn admitted(
        app: Arc<App>,
        slots: Slots,
        jobs: Vec<JobSpec>,
        prompt_param: &'static str,
    ) -> Result<Running, ApiError> {
        let choices = jobs.len();
        let mut record = Record::new(Arc::clone(&app));
        let answers = match try_join_all(jobs.into_iter().map(|job| app.backend.ask(job))).await {
            Ok(answers) => answers,
            Err(error) => return Err(record.fail(&error).at_prompt(prompt_param)),
        };
        let tag = |(index, events): (usize, crate::Events)| {
            let end = stream::once(async { None });
            events.map(Some).chain(end).map(move |event| (index, event)).boxed()
        };
        Ok(Running {
            events: stream::select_all(answers.into_iter().enumerate().map(tag)),
            unfinished: vec![true; choices],
            reports: vec![Vec::new(); choices],
            stopping: app.stopping.clone(),
            prompt_param,
            record,
            _slots: slots,
        })
    }

    pub(crate) fn choices(&self) -> usize {
        self.unfinished.len()
    }

    /// Whether every choice is done.
    pub(crate) fn finished(&self) -> bool {
        !self.unfinished.contains(&true)
    }

    /// The next event, or [`Next::Silence`] after `patience`. Cancel-safe.
    pub(crate) async fn next(&mut self, patience: Duration) -> Next {
        let silence = tokio::time::sleep(patience);
        tokio::pin!(silence);
        loop {
            let tagged = tokio::select! {
                biased;
                tagged = self.events.next() => tagged,
                () = stopped(&mut self.stopping) => return self.stop(),
                () = &mut silence => return Next::Silence,
            };
            let Some((index, event)) = tagged else { return self.silent_end() };
            if let Some(next) = self.take(index, event) {
                return next;
            }
        }
    }

    /// Turns an event into what a client sees of it, if anything.
    fn take(&mut self, index: usize, event: Option<Result<AnswerEvent, AskError>>) -> Option<Next> {
        match event {
            None if self.unfinished[index] => Some(self.silent_end()),
            None => None,
            Some(Err(error)) => {
                Some(Next::Failed(self.record.fail(&error).at_prompt(self.prompt_param)))
            }
            Some(Ok(_)) if !self.unfinished[index] => None,
            Some(Ok(AnswerEvent::Reading { read, of })) => Some(Next::Reading(read, of)),
            Some(Ok(AnswerEvent::Started { .. })) => Some(Next::Started(index)),
            Some(Ok(AnswerEvent::Delta { text, logprobs, .. })) => {
                self.reports[index].extend(logprobs);
                if text.is_empty() {
                    return None;
                }
                self.record.text();
                Some(Next::Text(index, text, std::mem::take(&mut self.reports[index])))
            }
            Some(Ok(AnswerEvent::Done(outcome))) => {
                self.unfinished[index] = false;
                let complete = self.finished();
                self.record.done(&outcome, complete);
                Some(Next::Done(index, outcome, std::mem::take(&mut self.reports[index])))
            }
            Some(Ok(_)) => None,
        }
    }

    fn silent_end(&mut self) -> Next {
        self.record.ending = Ending::Failed;
        Next::Failed(ApiError::silent_end())
    }

    fn stop(&mut self) -> Next {
        self.record.ending = Ending::Failed;
        Next::Failed(ApiError::stopping())
    }
}

/// Resolves when the gateway gives up on its answers.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    if stopping.wait_for(|stop| *stop).await.is_err() {
        // The gateway is gone without having asked to stop: nothing to obey.
        std::future::pending::<()>().await;
    }
}

/// Counts an answer once, when it is dropped.
struct Record {
    app: Arc<App>,
    began: Instant,
    first: bool,
    ending: Ending,
}

impl Record {
    fn new(app: Arc<App>) -> Record {
        Record { app, began: Instant::now(), first: true, ending: Ending::Cancelled }
    }

    fn text(&mut self) {
        if std::mem::take(&mut self.first) {
            self.app.metrics.first_token(self.began.elapsed());
        }
    }

    fn done(&mut self, outcome: &Outcome, complete: bool) {
        self.app.metrics.outcome(outcome);
        if complete {
            self.ending = Ending::Answered;
        }
    }

    fn fail(&mut self, error: &AskError) -> ApiError {
        self.ending = match error {
            AskError::Refused { .. } => Ending::Refused,
            _ => Ending::Failed,
        };
        let shown = ApiError::from_ask(error, self.app.config.exposes_peers());
        tracing::warn!(target: crate::FAILURES, code = shown.code(), %error, "no answer");
        shown
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.app.metrics.ended(self.ending, self.began.elapsed());
    }
}
