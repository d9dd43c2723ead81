//! Providers that compute something else, for the cheat suite.
//!
//! A [`Cheater`] runs the real forward pass with one thing changed, and keeps all
//! that it commits to, so that it opens its own cells as consistently as it can:
//! rows between layers, keys and values, states, leaves. What a check finds then
//! is the cheat itself and never a careless forgery. [`Cheat::lies_in`] says which
//! cells may be wrong; every other one must hold.
//! Deliberately absent: receipts and trees, and any judgement.

use std::sync::Arc;

use peerproof_proof::cells::{self, Exposed, Exposure, KV_PAGE, kv_layer, kv_page};
use peerproof_proof::sampling_seed;
use peerproof_wire::{Cell, Digest, Leaf, Offer, Signed, Stop};

use crate::draws::Draws;
use crate::execute::ReplayError;
use crate::forward::{Item, Runner};
use crate::gguf::{GgmlType, Gguf};
use crate::kernels::KernelPath;
use crate::kv::Kv;
use crate::light::shown_products;
use crate::model::{Model, ModelError};
use crate::sample::greedy;
use crate::spot::SpotError;
use crate::stop::Answer;
use crate::transformer::{LoadOptions, Transformer};

/// What is computed otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cheat {
    /// Nothing.
    Honest,
    /// The layers, in another order: a model of the same shape.
    OtherModel,
    /// The first so many layers only; the others pass on what they get.
    FewerLayers(usize),
    /// Weights of the layers without their lowest bit.
    CoarseWeights,
    /// Keys and values of 8 bits.
    CoarseCache,
    /// One integer of a key in one cell.
    OneCell(Cell),
    /// Attention to the last so many positions only.
    ShortContext(usize),
    /// The most probable token, whatever the offer's sampling draws.
    OtherDraws,
}

impl Cheat {
    /// Its name, for a table.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Honest => "none (honest)",
            Self::OtherModel => "another model of the same shape",
            Self::FewerLayers(_) => "last layers skipped",
            Self::CoarseWeights => "harsher quantisation",
            Self::CoarseCache => "8-bit keys and values",
            Self::OneCell(_) => "one layer at one position tampered",
            Self::ShortContext(_) => "truncated context",
            Self::OtherDraws => "another sampling",
        }
    }

    /// Whether this cell of an answer, in a model of so many layers, may be wrong.
    #[must_use]
    pub fn lies_in(&self, cell: Cell, layers: u32) -> bool {
        let (head, position) = (cell.layer == layers, cell.position as usize);
        match *self {
            Self::Honest => false,
            Self::OtherModel | Self::CoarseWeights | Self::CoarseCache => !head,
            Self::FewerLayers(kept) => !head && cell.layer as usize >= kept,
            Self::OneCell(one) => cell == one,
            Self::ShortContext(window) => !head && position >= window,
            Self::OtherDraws => head,
        }
    }
}

/// A provider that cheats.
#[derive(Debug)]
pub struct Cheater {
    /// The model it pretends to run.
    model: Arc<Model>,
    transformer: Arc<Transformer>,
    cheat: Cheat,
}

/// A cheater's answer, with everything it commits to.
#[derive(Clone, Debug)]
pub struct Forged {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// The text.
    pub text: String,
    /// The rule that ended it.
    pub stop: Stop,
    /// The leaves.
    pub leaves: Vec<Leaf>,
    /// Of each position, the rows that entered all layers.
    rows: Vec<Vec<i32>>,
    states: Vec<Vec<i32>>,
    /// Of each layer, pages of keys and values.
    pages: Vec<Vec<Vec<u8>>>,
    /// Their digests.
    digests: Vec<Vec<Digest>>,
}

impl Cheater {
    /// A cheater that pretends to run `model`, whose file is given; `None` if the file's
    /// formats don't allow this cheat.
    ///
    /// # Errors
    /// The file can't be used.
    pub fn new(file: &[u8], model: Arc<Model>, cheat: Cheat) -> Result<Option<Self>, ModelError> {
        let mut options = LoadOptions::default();
        if let Cheat::FewerLayers(layers) = cheat {
            options.only_layers = Some(layers);
        }
        let transformer = match cheat {
            Cheat::Honest | Cheat::OneCell(_) | Cheat::CoarseCache | Cheat::OtherDraws => {
                Arc::clone(model.transformer())
            }
            _ => {
                let mut bytes = file.to_vec();
                if cheat == Cheat::CoarseWeights && !coarsen(&mut bytes)? {
                    return Ok(None);
                }
                let mut altered = Transformer::load(&Gguf::parse(bytes)?, &options)?;
                match cheat {
                    Cheat::OtherModel => altered.layers.reverse(),
                    Cheat::ShortContext(window) => {
                        altered.layers.iter_mut().for_each(|layer| layer.window = Some(window));
                    }
                    _ => {}
                }
                Arc::new(altered)
            }
        };
        Ok(Some(Self { model, transformer, cheat }))
    }

    /// The products that it shows with a cell: those of the weights that it has used, where
    /// it has used any.
    ///
    /// # Errors
    /// The model has no such cell.
    pub fn products(&self, exposed: &Exposed) -> Result<Vec<i64>, SpotError> {
        let layers = self.transformer.shape().layers as u32;
        let all = self.model.transformer().shape().layers as u32;
        let layer = exposed.cell.layer;
        match layer {
            _ if layer < layers => shown_products(&self.transformer, exposed),
            // A layer that was left out, or the head, which no cheat changes.
            _ if layer <= all => shown_products(self.model.transformer(), exposed),
            got => Err(SpotError::Layer { expected: all as usize, got }),
        }
    }

    /// Answers an offer, a token at a time.
    ///
    /// # Errors
    /// The offer isn't one for the model.
    pub fn answer(&self, offer: &Signed<Offer>) -> Result<Forged, SpotError> {
        let Self { model, transformer, cheat } = self;
        let prompt = model.prompt_tokens(&offer.prompt).map_err(ReplayError::from)?;
        model.check_fit(&prompt, offer.max_tokens).map_err(ReplayError::from)?;
        let masks = model.masks(&offer.sampling).map_err(ReplayError::from)?;
        let (key, seed, end) = (offer.id(), sampling_seed(offer), model.first_end());
        let mut draws = Draws::new(key, seed, &offer.sampling, &prompt, masks, end);
        let mut runner = Runner::of_one_row(Arc::clone(transformer), 1, KernelPath::best())?;
        let mut kv = Kv::new(transformer, prompt.len() + offer.max_tokens as usize);
        let mut text = Answer::new(offer.stop.iter().cloned(), offer.max_tokens);
        let (mut tokens, mut leaves) = (Vec::new(), Vec::<Leaf>::new());
        let (mut rows, mut states) = (Vec::new(), Vec::new());
        while text.stop().is_none() {
            let position = leaves.len();
            let answered = || tokens[position - prompt.len()];
            let token = prompt.get(position).copied().unwrap_or_else(answered);
            let items = [Item { sequence: 0, token, logits: position + 1 >= prompt.len() }];
            runner.forward(&mut [&mut kv], &items, &mut |_, output| {
                let mut step = draws.step(position, token, &output);
                let drawn = step.drawn.as_mut().zip(output.logits);
                if let Some((drawn, logits)) = drawn.filter(|_| *cheat == Cheat::OtherDraws) {
                    drawn.next = greedy(logits);
                }
                rows.push(self.entered(output.entered, output.state));
                states.push(output.state.to_vec());
                leaves.push(step.into());
            })?;
            self.spoil(&mut kv, position);
            let leaf = &mut leaves[position];
            leaf.layers = cells::layers_digest(&rows[position]);
            if let Some(drawn) = &leaf.drawn {
                tokens.push(drawn.next);
                text.push(model.tokenizer(), drawn.next);
            }
        }
        let pages = self.pages(&kv);
        let digests = pages.iter().map(|pages| pages.iter().map(|page| kv_page(page)).collect());
        let digests = digests.collect();
        let stop = text.stop().unwrap_or(Stop::Length);
        let text = text.text_if_ended();
        Ok(Forged { tokens, text, stop, leaves, rows, states, pages, digests })
    }

    /// Rows for all layers of the file's model: a layer that was left out passes on its row.
    fn entered(&self, entered: &[i32], state: &[i32]) -> Vec<i32> {
        let missing = self.model.transformer().shape().layers - self.transformer.shape().layers;
        [entered, &state.repeat(missing)].concat()
    }

    /// Changes what has just been written of keys and values.
    fn spoil(&self, kv: &mut Kv, position: usize) {
        match self.cheat {
            Cheat::OneCell(cell) if cell.position as usize == position => {
                let mut first = true;
                kv.rewrite(cell.layer as usize, position, &mut |row| {
                    row[0] ^= i16::from(std::mem::take(&mut first));
                });
            }
            Cheat::CoarseCache => {
                for layer in 0..self.transformer.shape().layers {
                    kv.rewrite(layer, position, &mut |row| row.iter_mut().for_each(to_8_bits));
                }
            }
            _ => {}
        }
    }

    /// Pages of all layers' keys and values; zeros, as the arithmetic writes them, for a
    /// layer that was left out.
    fn pages(&self, kv: &Kv) -> Vec<Vec<Vec<u8>>> {
        let shape = self.model.transformer().shape();
        let mut zero = vec![0; 2 * shape.head_dims];
        zero.extend(127_i16.to_le_bytes());
        let zero = zero.repeat(2 * shape.kv_heads);
        let there = self.transformer.shape().layers;
        let counts =
            (0..kv.position()).step_by(KV_PAGE).map(|at| (kv.position() - at).min(KV_PAGE));
        let page = |layer: usize, at: usize, count: usize| {
            if layer < there { kv.kv_rows(at, layer, count) } else { zero.repeat(count) }
        };
        let pages = |layer| counts.clone().enumerate().map(|(at, n)| page(layer, at, n)).collect();
        (0..shape.layers).map(pages).collect()
    }
}

impl Forged {
    /// What is opened of any cell beside the cell's own: digests of each layer's keys and values.
    #[must_use]
    pub fn exposure(&self) -> Exposure {
        let positions = self.leaves.len() as u32;
        let layers = (0..).zip(&self.digests);
        let kv_layers = layers.map(|(layer, pages)| kv_layer(layer, positions, pages)).collect();
        Exposure { kv_layers, exposed: Vec::new() }
    }

    /// What is opened of a cell that reads keys and values from position `first` on.
    ///
    /// # Panics
    /// The answer has no such cell.
    #[must_use]
    pub fn exposed(&self, cell: Cell, first: u32) -> Exposed {
        let (position, layer) = (cell.position as usize, cell.layer as usize);
        let mut exposed = Exposed::empty(cell);
        exposed.entered.clone_from(&self.rows[position]);
        exposed.state.clone_from(&self.states[position]);
        exposed.first = first;
        if let Some(pages) = self.pages.get(layer) {
            exposed.pages = pages[first as usize / KV_PAGE..=position / KV_PAGE].to_vec();
            exposed.page_digests.clone_from(&self.digests[layer]);
        }
        exposed
    }
}

/// The nearest number of which 8 bits are left; the largest of a row stays in its bounds.
fn to_8_bits(value: &mut i16) {
    let rounded = (i32::from(*value) + 128) >> 8 << 8;
    *value = rounded.clamp(-(127 << 8), 127 << 8) as i16;
}

/// Clears the lowest bit of the layers' weights, in formats that have whole bytes of them;
/// false if there are none.
fn coarsen(file: &mut [u8]) -> Result<bool, ModelError> {
    let gguf = Gguf::parse(file.to_vec())?;
    let mut found = false;
    for tensor in gguf.tensors().filter(|tensor| tensor.name.starts_with("blk.")) {
        let (block, scales, mask) = match tensor.kind {
            GgmlType::Q4_0 => (18, 2, 0xee),
            GgmlType::Q4_1 => (20, 4, 0xee),
            GgmlType::Q4K => (144, 16, 0xee),
            GgmlType::Q8_0 => (34, 2, 0xf0),
            _ => continue,
        };
        let range = gguf.range_of(&tensor);
        let bytes = &mut file[range.start as usize..range.end as usize];
        for block in bytes.chunks_exact_mut(block) {
            block[scales..].iter_mut().for_each(|byte| *byte &= mask);
        }
        found = true;
    }
    Ok(found)
}
