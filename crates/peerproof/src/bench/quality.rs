//! The integers against the float pass over a long text.
//!
//! The text is cut into contexts of equal length, as llama.cpp's perplexity tool
//! cuts it: the begin-of-text token of a model that has one takes the place of
//! each context's first token. Contexts are independent, so threads take one
//! each; what comes out is put in order again. Beside our own figures the float
//! pass's probabilities can be written in that tool's format, so that llama.cpp
//! is held against the very same reference on the very same tokens.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, mpsc};

use peerproof_engine::gguf::Gguf;
use peerproof_engine::kernels::KernelPath;
use peerproof_engine::reference::{CompareError, Comparer, Prediction, Reference};
use peerproof_engine::tokenizer::{Special, Tokenizer};
use peerproof_engine::transformer::{LoadOptions, Transformer};

use super::{BenchError, Quality, base, engine};

/// What to compare on.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The text.
    pub text: &'a str,
    /// Tokens of it, rounded up to whole contexts.
    pub tokens: usize,
    /// Tokens that share a context, at least 2.
    pub context: usize,
    /// Contexts of the text before the first that is compared: a long text can be compared in
    /// pieces, whose contexts are those of the whole.
    pub skip: usize,
    /// Contexts computed at once.
    pub threads: usize,
    /// Where the float pass's probabilities go, as `llama-perplexity --kl-divergence-base`
    /// reads them; a named pipe will do.
    pub base: Option<&'a Path>,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Compared {
    /// Every prediction.
    pub all: Quality,
    /// Those of each context's second half, which have a long context and are the ones that
    /// llama.cpp's tool takes.
    pub second_half: Quality,
    /// Each context's own.
    pub contexts: Vec<Quality>,
}

/// Compares the integers with the float reference; `done` hears of every context, in order,
/// with the figures up to it.
///
/// # Errors
/// The file can't be used, the text is too short, or `base` can't be written.
pub fn quality(
    path: &Path,
    scope: &Scope<'_>,
    done: &mut dyn FnMut(usize, &Quality),
) -> Result<Compared, BenchError> {
    let failed = |message: String| BenchError::Model { path: path.to_owned(), message };
    let gguf = Gguf::open(path).map_err(|e| failed(e.to_string()))?;
    let model =
        Transformer::load(&gguf, &LoadOptions::default()).map_err(|e| failed(e.to_string()))?;
    let tokenizer = Tokenizer::from_gguf(&gguf).map_err(|e| failed(e.to_string()))?;
    let passage = Passage::read(&tokenizer, scope)?;
    let vocabulary = model.vocabulary();
    let reference = Reference::new(&gguf, Arc::new(model)).map_err(|e| failed(e.to_string()))?;
    let mut base = scope.base.map(|path| begin_base(path, &passage, vocabulary)).transpose()?;
    let mut predictions: Vec<Vec<Prediction>> = Vec::new();
    let contexts = passage.contexts();
    in_order(scope.threads.clamp(1, contexts.max(1)), &passage, &reference, |part| {
        let (context, rows) = part?;
        if let Some(base) = &mut base {
            base.write_all(&rows).map_err(engine("base"))?;
        }
        predictions.push(context);
        done(contexts, &Quality::of(predictions.iter().flatten()));
        Ok(())
    })?;
    let half = |context: &'_ Vec<Prediction>| passage.first_scored().min(context.len());
    let tails = predictions.iter().flat_map(|context| &context[half(context)..]);
    Ok(Compared {
        all: Quality::of(predictions.iter().flatten()),
        second_half: Quality::of(tails),
        contexts: predictions.iter().map(|context| Quality::of(context.iter())).collect(),
    })
}

fn begin_base(path: &Path, passage: &Passage, vocabulary: usize) -> Result<File, BenchError> {
    let head = base::head(passage.context, vocabulary, passage.contexts(), &passage.tokens);
    let mut file = File::create(path).map_err(engine("base"))?;
    file.write_all(&head).map_err(engine("base"))?;
    Ok(file)
}

/// A text in tokens, in contexts.
struct Passage {
    tokens: Vec<u32>,
    context: usize,
    begin: Option<u32>,
    /// Whether the rows that llama.cpp's tool takes are wanted.
    rows: bool,
}

impl Passage {
    fn read(tokenizer: &Tokenizer, scope: &Scope<'_>) -> Result<Passage, BenchError> {
        let begin = tokenizer.bos().filter(|_| tokenizer.adds_bos());
        let mut tokens: Vec<u32> = begin.into_iter().collect();
        tokens.extend(tokenizer.encode(scope.text, Special::Plain).map_err(engine("text"))?);
        let context = scope.context.clamp(2, scope.tokens.max(2));
        let tokens = part(tokens, scope.tokens, context, scope.skip)?;
        Ok(Passage { tokens, context, begin, rows: scope.base.is_some() })
    }

    fn contexts(&self) -> usize {
        self.tokens.len() / self.context
    }

    /// The tokens that a model reads for a context.
    fn context(&self, at: usize) -> Vec<u32> {
        let mut tokens = self.tokens[at * self.context..][..self.context].to_vec();
        if let Some(begin) = self.begin {
            tokens[0] = begin;
        }
        tokens
    }

    /// The first position whose prediction llama.cpp's tool takes.
    fn first_scored(&self) -> usize {
        self.context / 2
    }
}

/// Whole contexts, `wanted` tokens or the next more, after the first `skip` contexts.
fn part(
    mut tokens: Vec<u32>,
    wanted: usize,
    context: usize,
    skip: usize,
) -> Result<Vec<u32>, BenchError> {
    let skipped = skip.saturating_mul(context);
    let count = wanted.clamp(2, usize::MAX - context).next_multiple_of(context);
    let expected = skipped.saturating_add(count);
    if tokens.len() < expected {
        return Err(BenchError::Short { expected, got: tokens.len() });
    }
    tokens.truncate(expected);
    tokens.drain(..skipped);
    Ok(tokens)
}

/// One context: its predictions, and its rows of the base.
type Part = Result<(Vec<Prediction>, Vec<u8>), BenchError>;

/// Computes all contexts on `threads` threads, in turns, and hands them to `take` in order.
fn in_order(
    threads: usize,
    passage: &Passage,
    reference: &Reference<'_>,
    mut take: impl FnMut(Part) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    std::thread::scope(|scope| {
        // A thread that is ahead waits for its turn, so what is held is bounded.
        let lanes: Vec<mpsc::Receiver<Part>> = (0..threads)
            .map(|first| {
                let (sender, parts) = mpsc::sync_channel(0);
                scope.spawn(move || {
                    for at in (first..passage.contexts()).step_by(threads) {
                        // The other side hangs up when it has failed.
                        if sender.send(one(reference, passage, at)).is_err() {
                            break;
                        }
                    }
                });
                parts
            })
            .collect();
        (0..passage.contexts()).try_for_each(|at| {
            let part = lanes[at % threads].recv();
            take(part.map_err(|_| engine("comparison")("a thread panicked"))?)
        })
    })
}

/// Both passes over one context.
fn one(reference: &Reference<'_>, passage: &Passage, at: usize) -> Part {
    let compare = || -> Result<_, CompareError> {
        let mut comparer = Comparer::new(reference, 1, KernelPath::best())?;
        let mut rows = Vec::new();
        let predictions = comparer.compare(&passage.context(at), &mut |position, logits| {
            if passage.rows && position >= passage.first_scored() {
                base::put_row(logits, &mut rows);
            }
        })?;
        Ok((predictions, rows))
    };
    compare().map_err(engine("comparison"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_text_make_up_the_whole() {
        let text: Vec<u32> = (0..100).collect();
        let of = |wanted, skip| part(text.clone(), wanted, 8, skip).ok();
        let mut pieces = of(20, 0).expect("three contexts");
        pieces.extend(of(64, 3).expect("eight contexts"));
        assert_eq!(Some(pieces), of(88, 0));
        assert_eq!(of(90, 0).map(|part| part.len()), Some(96));
        for (wanted, skip) in [(97, 0), (8, 12), (usize::MAX, 1), (8, usize::MAX)] {
            assert!(of(wanted, skip).is_none(), "{wanted} {skip}");
        }
    }
}
