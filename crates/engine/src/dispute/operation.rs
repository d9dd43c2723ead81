//! The operations of a cell: what each reads and gives, and what it must give.
//!
//! [`Operation::needs`] lists stretches of bytes in the order in which a proof holds
//! them; [`Operation::judge`] computes on these bytes alone. The same list serves who
//! makes a proof and who checks it.

use std::ops::Range;

use super::DisputeError;
use super::layout::{Layout, Placed};
use super::rows::{Kind, row_bytes};
use crate::arith::WEIGHT_BITS;
use crate::pack;
use crate::trace::steps::{self, BLOCK, Gain, Short, Turn};
use crate::transformer::name;

macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $text:literal;)*) => {
        /// One operation of a cell. Most give many numbers of which one is looked at.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Operation {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Operation {
            /// Every operation, by number.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// What it is called.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

operations! {
    /// The row that enters, normalised, all of it.
    AttentionNorm = 1, "norm before attention";
    /// A number of the product with the query matrix.
    Query = 2, "query product";
    /// As `Query`.
    Key = 3, "key product";
    /// As `Query`.
    Value = 4, "value product";
    /// A number of a query head, or its exponent.
    QueryHead = 5, "query head";
    /// A number of a key head, or its exponent.
    KeyHead = 6, "key head";
    /// A number of a value head, or its exponent.
    ValueHead = 7, "value head";
    /// A head's score of a position.
    Score = 8, "attention score";
    /// That no score is above the largest.
    Largest = 9, "largest score";
    /// The sum of weights of a block of positions.
    Weights = 10, "sum of weights";
    /// That no value with a weight has a smaller exponent than the smallest.
    Coarsest = 11, "smallest exponent of values";
    /// The weighted sum of a block of positions.
    Sums = 12, "weighted sum";
    /// A number that a head gives, or its exponent.
    Blend = 13, "attention output";
    /// The heads side by side at 16 bits, all of them.
    Join = 14, "joined heads";
    /// A number of the product back to the residual.
    Output = 15, "attention output product";
    /// A number of the residual row between attention and feed-forward.
    Between = 16, "residual after attention";
    /// That row, normalised, all of it.
    FeedNorm = 17, "norm before feed-forward";
    /// A number of the product with the gate.
    Gate = 18, "gate product";
    /// As `Gate`.
    Up = 19, "up product";
    /// A number of the gated row.
    Hidden = 20, "gated row";
    /// A number of it at 16 bits.
    Fed = 21, "gated row at 16 bits";
    /// A number of the product back to the residual.
    Down = 22, "down product";
    /// A number of the row that leaves.
    Leaving = 23, "residual that leaves";
    /// The state, normalised, all of it.
    HeadNorm = 24, "last norm";
    /// A logit.
    Logit = 25, "logit";
    /// A number of a token's embedding.
    Embedding = 26, "embedding";
}

/// Where bytes stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The rows that enter the layers.
    Rows,
    /// The row behind the last layer.
    State,
    /// The logits.
    Logits,
    /// A page of the layer's keys and values.
    Page(usize),
    /// A row of the cell's trace.
    Row(usize),
    /// A row of the trace of a head.
    Part(usize),
    /// The model's file.
    File,
}

/// A stretch that an operation reads, or gave.
pub(super) type Need = (Source, Range<u64>);

/// What an operation takes beside bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) layout: &'a Layout,
    pub(super) position: u32,
    pub(super) layer: u32,
    pub(super) token: u32,
    /// Exponent and index of each row of the cell's trace.
    pub(super) rows: &'a [(i32, u32)],
    /// Head and dimension of the part, and the same of its rows.
    pub(super) part: Option<PartContext<'a>>,
}

/// Head and dimension of a part, and exponent and index of each of its rows.
pub(super) type PartContext<'a> = ((usize, usize), &'a [(i32, u32)]);

/// What differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// As recomputed.
    pub expected: String,
    /// As signed.
    pub got: String,
}

/// A comparison: `None` if both are equal.
fn compare(expected: i128, got: i128) -> Option<Finding> {
    let differs = expected != got;
    differs.then(|| Finding { expected: expected.to_string(), got: got.to_string() })
}

/// What judging comes to.
pub(super) enum Judged {
    /// One number is compared.
    One(Option<Finding>),
    /// A whole row is: its place in the trace, and what it must be.
    Row(usize, Short),
}

impl Operation {
    /// The operation with that number.
    #[must_use]
    pub fn of(number: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|it| *it as u32 == number)
    }

    /// Whether it is one of a head of attention, whose trace is a part.
    #[must_use]
    pub fn is_of_part(self) -> bool {
        (Self::Score as u32..=Self::Blend as u32).contains(&(self as u32))
    }

    /// Whether it is one of a head cell.
    #[must_use]
    pub fn is_of_head(self) -> bool {
        matches!(self, Self::HeadNorm | Self::Logit)
    }

    /// The matrix of a product, the row it reads and the row it gives.
    fn product(self) -> Option<(u32, usize, usize)> {
        Some(match self {
            Self::Query => (1, 0, 1),
            Self::Key => (2, 0, 2),
            Self::Value => (3, 0, 3),
            Self::Output => (4, 6, 7),
            Self::Gate => (5, 9, 10),
            Self::Up => (6, 9, 11),
            Self::Down => (7, 13, 14),
            _ => return None,
        })
    }

    /// What the operation reads, and last what it gave.
    pub(super) fn needs(self, at: &Context<'_>, index: usize) -> Result<Vec<Need>, DisputeError> {
        let it = at.layout;
        if index >= self.outputs(at) {
            let expected = self.outputs(at);
            return Err(DisputeError::Index { expected, got: index });
        }
        let row = |which: usize, index: usize| {
            let size = Kind::Layer.element(which) as u64;
            (Source::Row(which), index as u64 * size..(index as u64 + 1) * size)
        };
        let whole = |which: usize| {
            (Source::Row(which), 0..row_bytes(it, Kind::of_cell(at), at.position, which) as u64)
        };
        let file = |which: u32, from: usize, count: usize| {
            Ok::<_, DisputeError>((Source::File, it.tensor(which)?.range(from, count)?))
        };
        let width = it.width;
        if let Some((matrix, input, output)) = self.product() {
            let (columns, _) = it.dims_of(matrix);
            let weights = file(matrix, index * columns, columns)?;
            return Ok(vec![whole(input), weights, row(output, index)]);
        }
        Ok(match self {
            Self::AttentionNorm => {
                vec![entering(at, 0, width), file(name::ATTENTION_NORM, 0, width)?]
            }
            Self::FeedNorm => vec![whole(8), file(name::FEED_NORM, 0, width)?],
            Self::HeadNorm => {
                vec![(Source::State, 0..4 * width as u64), file(name::LAST_NORM, 0, width)?]
            }
            Self::QueryHead | Self::KeyHead | Self::ValueHead => self.head_needs(at, index)?,
            Self::Join => vec![whole(5)],
            Self::Between => self.sum_needs(at, index, (7, name::POST_ATTENTION))?,
            Self::Leaving => self.sum_needs(at, index, (14, name::POST_FEED))?,
            Self::Hidden => vec![row(10, index), row(11, index), row(12, index)],
            Self::Fed => {
                let largest = at.rows.get(13).map_or(0, |row| row.1) as usize;
                // Where there is no such number, the number itself stands in for it.
                let largest = if largest < it.feed { largest } else { index };
                vec![row(12, index), row(12, largest), row(13, index)]
            }
            Self::Logit => {
                let logit = (Source::Logits, 4 * index as u64..4 * index as u64 + 4);
                vec![whole(0), file(name::HEAD, index * width, width)?, logit]
            }
            Self::Embedding => {
                let weights = file(name::EMBEDDING, at.token as usize * width, width)?;
                vec![weights, entering(at, index, 1)]
            }
            _ => self.part_needs(at, index)?,
        })
    }

    /// How many outputs there are.
    fn outputs(self, at: &Context<'_>) -> usize {
        let it = at.layout;
        if let Some((matrix, ..)) = self.product() {
            return it.dims_of(matrix).1;
        }
        let reads = (at.position + 1).saturating_sub(it.wire.first) as usize;
        match self {
            Self::AttentionNorm | Self::FeedNorm | Self::HeadNorm | Self::Join => 1,
            Self::QueryHead | Self::Blend => it.heads * (it.dims + 1),
            Self::KeyHead | Self::ValueHead => it.kv_heads * (it.dims + 1),
            Self::Score | Self::Largest | Self::Coarsest => reads,
            Self::Weights | Self::Sums => reads.div_ceil(BLOCK),
            Self::Hidden | Self::Fed => it.feed,
            Self::Logit => it.wire.vocabulary as usize,
            _ => it.width,
        }
    }

    fn head_needs(self, at: &Context<'_>, index: usize) -> Result<Vec<Need>, DisputeError> {
        let it = at.layout;
        let (head, place) = (index / (it.dims + 1), index % (it.dims + 1));
        let which = self as u32 - Self::QueryHead as u32;
        let product = (head * it.dims * 8) as u64..((head + 1) * it.dims * 8) as u64;
        let mut needs = vec![(Source::Row(1 + which as usize), product)];
        if let Some(bias) = it.optional(name::BIASES + which)? {
            needs.push((Source::File, bias.range(head * it.dims, it.dims)?));
        }
        if let Some(norm) = head_norm(it, which)? {
            needs.push((Source::File, norm.range(0, it.dims)?));
        }
        needs.push(match which {
            0 => (Source::Row(4), 2 * index as u64..2 * index as u64 + 2),
            _ => kv_need(at, at.position, head, which == 1, place..place + 1),
        });
        Ok(needs)
    }

    /// Of a number of a residual row that a product was added to.
    fn sum_needs(
        self,
        at: &Context<'_>,
        index: usize,
        (product, post): (usize, u32),
    ) -> Result<Vec<Need>, DisputeError> {
        let it = at.layout;
        let number = |size: usize| (size * index) as u64..(size * (index + 1)) as u64;
        let before = match self {
            Self::Between => entering(at, index, 1),
            _ => (Source::Row(8), number(4)),
        };
        let mut needs = vec![before];
        match it.optional(post)? {
            Some(post) => {
                needs.push((Source::Row(product), 0..8 * it.width as u64));
                needs.push((Source::File, post.range(index, 1)?));
            }
            None => needs.push((Source::Row(product), number(8))),
        }
        needs.push(match self {
            Self::Between => (Source::Row(8), number(4)),
            _ if at.layer + 1 == it.wire.layers => (Source::State, number(4)),
            _ => {
                let start = 4 * (at.layer as u64 + 1) * it.width as u64;
                (Source::Rows, start + number(4).start..start + number(4).end)
            }
        });
        Ok(needs)
    }

    fn part_needs(self, at: &Context<'_>, index: usize) -> Result<Vec<Need>, DisputeError> {
        let it = at.layout;
        let Some(((head, dim), rows)) = at.part else { return Err(DisputeError::Part) };
        let reads = (at.position + 1).saturating_sub(it.wire.first) as usize;
        let kv_head = head / (it.heads / it.kv_heads);
        let part = |row: usize, from: usize, to: usize| {
            let size = Kind::Part.element(row);
            (Source::Part(row), (from * size) as u64..(to * size) as u64)
        };
        let extreme = |row: usize| rows.get(row).map_or(0, |row| row.1 as usize);
        // Where there is no such position, the first stands in for it.
        let largest = if extreme(0) < reads { extreme(0) } else { 0 };
        let largest = part(0, largest, largest + 1);
        let block = BLOCK * index..(BLOCK * (index + 1)).min(reads);
        let position = |at: usize| it.wire.first + at as u32;
        Ok(match self {
            Self::Score => vec![
                (Source::Row(4), head_range(it, head)),
                kv_need(at, position(index), kv_head, true, 0..it.dims + 1),
                part(0, index, index + 1),
            ],
            Self::Largest => vec![part(0, index, index + 1), largest],
            Self::Coarsest => vec![
                part(0, index, index + 1),
                largest,
                kv_need(at, position(index), kv_head, false, it.dims..it.dims + 1),
            ],
            Self::Weights | Self::Sums => {
                let row = if self == Self::Weights { 1 } else { 2 };
                let mut needs = vec![part(0, block.start, block.end), largest];
                if row == 2 {
                    let value = |at_block: usize| {
                        kv_need(at, position(at_block), kv_head, false, dim..it.dims + 1)
                    };
                    needs.extend(block.map(value));
                }
                if index > 0 {
                    needs.push(part(row, index - 1, index));
                }
                needs.push(part(row, index, index + 1));
                needs
            }
            _ => {
                let last = reads.div_ceil(BLOCK).saturating_sub(1);
                let output = (Source::Row(5), 4 * index as u64..4 * index as u64 + 4);
                match index % (it.dims + 1) == it.dims {
                    true => vec![output],
                    false => vec![part(1, last, last + 1), part(2, last, last + 1), output],
                }
            }
        })
    }

    /// Computes the operation on the bytes of [`Operation::needs`].
    pub(super) fn judge(
        self,
        at: &Context<'_>,
        index: usize,
        bytes: &[Vec<u8>],
    ) -> Result<Judged, DisputeError> {
        let it = at.layout;
        let own = |row: usize| at.rows.get(row).map_or(0, |row| row.0);
        let get = |which: usize| bytes.get(which).map_or(&[][..], Vec::as_slice);
        let last = get(bytes.len().saturating_sub(1));
        if let Some((matrix, _, _)) = self.product() {
            let sum = product(&it.tensor(matrix)?, get(1), &shorts(get(0)))?;
            return Ok(Judged::One(compare(sum, long(last).into())));
        }
        Ok(Judged::One(match self {
            Self::AttentionNorm | Self::FeedNorm | Self::HeadNorm => {
                let (which, row) = match self {
                    Self::AttentionNorm => (name::ATTENTION_NORM, 0),
                    Self::FeedNorm => (name::FEED_NORM, 9),
                    _ => (name::LAST_NORM, 0),
                };
                let (gain, exponent) = gains(&it.tensor(which)?, get(1))?;
                let gain = Gain { values: &gain, exponent };
                return Ok(Judged::Row(row, steps::norm(&words(get(0))?, gain, it.epsilon)));
            }
            Self::Join => {
                let heads = words(get(0))?;
                let heads: Vec<_> =
                    heads.chunks_exact(it.dims + 1).map(crate::trace::split).collect();
                return Ok(Judged::Row(6, steps::join(&heads)));
            }
            Self::QueryHead | Self::KeyHead | Self::ValueHead => {
                let short = self.turned(at, bytes)?;
                let place = index % (it.dims + 1);
                let expected = match short.values.get(place) {
                    Some(value) => *value,
                    None => short.exponent as i16,
                };
                compare(i128::from(expected), short_of(last).into())
            }
            Self::Between | Self::Leaving => self.sum(at, index, bytes)?,
            Self::Hidden => {
                let exponent = |matrix| Ok::<_, DisputeError>(it.tensor(matrix)?.exponent + own(9));
                let [gate, up] = [wide(get(0), 58)?, wide(get(1), 58)?];
                let expected = steps::gated((gate, exponent(5)?), (up, exponent(6)?), it.wire.gelu);
                compare(i128::from(expected), long(last).into())
            }
            Self::Fed => fed(at, wide(get(0), 62)?, wide(get(1), 62)?, short_of(last)),
            Self::Logit => {
                let sum = product(&it.tensor(name::HEAD)?, get(1), &shorts(get(0)))?;
                let sum = i64::try_from(sum).ok().filter(|sum| sum.unsigned_abs() < 1 << 62);
                let sum = sum.ok_or(DisputeError::Bounds)?;
                let exponent = it.tensor(name::HEAD)?.exponent + own(0);
                let expected = steps::logit(sum, exponent, it.logit_cap);
                compare(i128::from(expected), word(last).into())
            }
            Self::Embedding => {
                let tensor = it.tensor(name::EMBEDDING)?;
                let weights = integers(&tensor, get(0))?;
                let weight = weights.get(index).copied().ok_or(DisputeError::Bounds)?;
                let expected = steps::embedded(weight, tensor.exponent, it.wire.embedding_scale);
                compare(i128::from(expected), word(last).into())
            }
            _ => self.judge_part(at, index, bytes)?,
        }))
    }

    /// A query, key or value head.
    fn turned(self, at: &Context<'_>, bytes: &[Vec<u8>]) -> Result<Short, DisputeError> {
        let it = at.layout;
        let which = self as u32 - Self::QueryHead as u32;
        let matrix = it.tensor(1 + which)?;
        let product = bytes.first().map_or(&[][..], Vec::as_slice);
        let product: Vec<i64> =
            product.chunks_exact(8).map(|bytes| wide(bytes, 58)).collect::<Result<_, _>>()?;
        let mut rest = bytes.iter().skip(1);
        let mut gain = |tensor: Option<Placed>| match tensor.zip(rest.next()) {
            Some((tensor, bytes)) => gains(&tensor, bytes).map(Some),
            None => Ok(None),
        };
        let bias = match it.optional(name::BIASES + which)? {
            Some(tensor) => gain(Some(tensor))?,
            None => None,
        };
        let norm = match head_norm(it, which)? {
            Some(tensor) => gain(Some(tensor))?,
            None => None,
        };
        let lend = |(values, exponent): &(Vec<i32>, i32)| (values.clone(), *exponent);
        let (bias, norm) = (bias.as_ref().map(lend), norm.as_ref().map(lend));
        let turn = Turn {
            exponent: matrix.exponent + at.rows.first().map_or(0, |row| row.0),
            bits: matrix.product_bits(it.width),
            bias: bias.as_ref().map(|(values, exponent)| Gain { values, exponent: *exponent }),
            norm: norm
                .as_ref()
                .map(|(values, exponent)| (Gain { values, exponent: *exponent }, it.epsilon)),
            angles: (which < 2).then_some((&it.angles[..], it.pairing())),
        };
        Ok(turn.apply(&product))
    }

    /// A number of a residual row.
    fn sum(
        self,
        at: &Context<'_>,
        index: usize,
        bytes: &[Vec<u8>],
    ) -> Result<Option<Finding>, DisputeError> {
        let it = at.layout;
        let (matrix, input, post) = match self {
            Self::Between => (4, 6, name::POST_ATTENTION),
            _ => (7, 13, name::POST_FEED),
        };
        let exponent = it.tensor(matrix)?.exponent + at.rows.get(input).map_or(0, |row| row.0);
        let get = |which: usize| bytes.get(which).map_or(&[][..], Vec::as_slice);
        let before = *words(get(0))?.first().ok_or(DisputeError::Bounds)?;
        let (added, exponent) = match it.optional(post)? {
            None => (wide(get(1), 58)?, exponent),
            Some(post) => {
                let product: Vec<i64> =
                    get(1).chunks_exact(8).map(|v| wide(v, 58)).collect::<Result<_, _>>()?;
                let (own, gain_exponent) = gains(&post, get(2))?;
                // A number of what is normalised takes its own gain only.
                let mut gain = vec![0; product.len()];
                let own = own.first().copied().ok_or(DisputeError::Bounds)?;
                *gain.get_mut(index).ok_or(DisputeError::Bounds)? = own;
                let gain = Gain { values: &gain, exponent: gain_exponent };
                let (row, exponent) = steps::post_norm(&product, exponent, gain, it.epsilon);
                (row[index], exponent)
            }
        };
        let last = get(bytes.len().saturating_sub(1));
        Ok(compare(i128::from(steps::add(before, added, exponent)), word(last).into()))
    }

    fn judge_part(
        self,
        at: &Context<'_>,
        index: usize,
        bytes: &[Vec<u8>],
    ) -> Result<Option<Finding>, DisputeError> {
        let it = at.layout;
        let Some((_, rows)) = at.part else { return Err(DisputeError::Part) };
        let reads = (at.position + 1).saturating_sub(it.wire.first) as usize;
        let get = |which: usize| bytes.get(which).map_or(&[][..], Vec::as_slice);
        let last = get(bytes.len().saturating_sub(1));
        let (largest, coarsest) = (rows.first(), rows.get(2));
        let (Some(&(_, largest)), Some(&(smallest, coarsest))) = (largest, coarsest) else {
            return Err(DisputeError::Part);
        };
        // An index that no position has is no honest provider's.
        let beyond = |got: u32| {
            let expected = format!("a position below {reads}");
            Some(Finding { expected, got: got.to_string() })
        };
        if !matches!(self, Self::Score) && largest as usize >= reads {
            return Ok(beyond(largest));
        }
        Ok(match self {
            Self::Score => {
                let split = |bytes: &[u8]| {
                    let mut row = shorts(bytes);
                    let exponent = row.pop().map_or(0, i32::from);
                    (row, exponent)
                };
                let ((query, q), (key, k)) = (split(get(0)), split(get(1)));
                let scale = i64::from(it.wire.score_scale);
                let expected = steps::score((&query, q), (&key, k), scale, it.score_cap);
                compare(i128::from(expected), word(last).into())
            }
            Self::Largest => {
                let (got, most) = (word(get(0)), word(get(1)));
                (got > most)
                    .then(|| Finding { expected: format!("at most {most}"), got: got.to_string() })
            }
            Self::Weights | Self::Sums => self.block(index, bytes, smallest),
            Self::Coarsest => {
                if coarsest as usize >= reads {
                    return Ok(beyond(coarsest));
                }
                let weight = steps::weight(word(get(0)), word(get(1)));
                let exponent = i32::from(short_of(last));
                let own = index == coarsest as usize;
                let wrong = (weight > 0 && exponent < smallest)
                    || (own && (weight == 0 || exponent != smallest));
                wrong.then(|| Finding {
                    expected: format!("{exponent} at position {index}, whose weight is {weight}"),
                    got: format!("{smallest} at position {coarsest}"),
                })
            }
            _ if index % (it.dims + 1) == it.dims => {
                compare(i128::from(smallest + WEIGHT_BITS), word(last).into())
            }
            _ => {
                let (total, sum) = (wide(get(0), 62)?, wide(get(1), 62)?);
                let expected = steps::blended(sum, total).ok_or(DisputeError::Bounds)?;
                compare(i128::from(expected), word(last).into())
            }
        })
    }
}

impl Operation {
    /// The sum up to the end of a block, of weights or of weighted values.
    fn block(self, index: usize, bytes: &[Vec<u8>], smallest: i32) -> Option<Finding> {
        let get = |which: usize| bytes.get(which).map_or(&[][..], Vec::as_slice);
        let most = word(get(1));
        let scores = get(0).as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes));
        let weights = scores.map(|score| steps::weight(score, most));
        let mut sum: i128 = match self {
            Self::Weights => weights.map(i128::from).sum(),
            _ => {
                let values = (2..).map(|which| shorts(get(which)));
                let one = |(weight, value): (i64, Vec<i16>)| {
                    let exponent = value.last().map_or(0, |e| i32::from(*e));
                    let value = value.first().copied().unwrap_or(0);
                    i128::from(steps::weighted(weight, value, exponent, smallest))
                };
                weights.zip(values).map(one).sum()
            }
        };
        if index > 0 {
            sum += i128::from(long(get(bytes.len().saturating_sub(2))));
        }
        compare(sum, long(get(bytes.len().saturating_sub(1))).into())
    }
}

/// A number of the gated row at 16 bits, beside the largest.
fn fed(at: &Context<'_>, v: i64, largest: i64, got: i16) -> Option<Finding> {
    let (exponent, index) = at.rows.get(13).copied().unwrap_or_default();
    let signed = format!("{index} as the largest");
    if index as usize >= at.layout.feed || v.unsigned_abs() > largest.unsigned_abs() {
        return Some(Finding { expected: format!("at least {v}"), got: signed });
    }
    let shift = steps::short_shift(largest);
    let right = shift.map_or(crate::arith::ZERO_EXPONENT, |shift| steps::HIDDEN_BITS - shift);
    compare(i128::from(right), exponent.into())
        .or_else(|| compare(i128::from(steps::shorten(v, shift)), got.into()))
}

/// Where a query head stands in its row.
fn head_range(it: &Layout, head: usize) -> Range<u64> {
    let bytes = 2 * (it.dims + 1);
    (head * bytes) as u64..((head + 1) * bytes) as u64
}

fn head_norm(it: &Layout, which: u32) -> Result<Option<Placed>, DisputeError> {
    if which < 2 { it.optional(name::HEAD_NORMS + which) } else { Ok(None) }
}

fn entering(at: &Context<'_>, from: usize, count: usize) -> Need {
    let start = u64::from(at.layer) * at.layout.width as u64 + from as u64;
    (Source::Rows, 4 * start..4 * (start + count as u64))
}

/// Numbers `places` of a key or value of a position.
fn kv_need(at: &Context<'_>, position: u32, head: usize, key: bool, places: Range<usize>) -> Need {
    let it = at.layout;
    let page = peerproof_proof::cells::KV_PAGE;
    let row = position as usize % page * it.kv_row();
    let start = row + (2 * head + usize::from(!key)) * 2 * (it.dims + 1);
    let range = (start + 2 * places.start) as u64..(start + 2 * places.end) as u64;
    (Source::Page(position as usize / page), range)
}

fn integers(tensor: &Placed, bytes: &[u8]) -> Result<Vec<i128>, DisputeError> {
    pack::integers(tensor.kind, bytes, tensor.exponent).ok_or(DisputeError::Bounds)
}

fn product(tensor: &Placed, weights: &[u8], row: &[i16]) -> Result<i128, DisputeError> {
    let weights = integers(tensor, weights)?;
    if weights.len() != row.len() {
        return Err(DisputeError::Bounds);
    }
    Ok(weights.iter().zip(row).map(|(weight, &v)| weight * i128::from(v)).sum())
}

/// Gains or biases, as the forward pass has them.
fn gains(tensor: &Placed, bytes: &[u8]) -> Result<(Vec<i32>, i32), DisputeError> {
    let values = integers(tensor, bytes)?;
    let narrow = |v: i128| v.clamp(-(1 << 30), 1 << 30) as i32;
    Ok((values.into_iter().map(narrow).collect(), tensor.exponent))
}

fn shorts(bytes: &[u8]) -> Vec<i16> {
    bytes.as_chunks().0.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect()
}

fn short_of(bytes: &[u8]) -> i16 {
    bytes.first_chunk().map_or(0, |bytes| i16::from_le_bytes(*bytes))
}

fn word(bytes: &[u8]) -> i32 {
    bytes.first_chunk().map_or(0, |bytes| i32::from_le_bytes(*bytes))
}

fn long(bytes: &[u8]) -> i64 {
    bytes.first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes))
}

/// Residual integers, of which none is the least.
fn words(bytes: &[u8]) -> Result<Vec<i32>, DisputeError> {
    let words: Vec<i32> = bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect();
    if words.contains(&i32::MIN) { Err(DisputeError::Bounds) } else { Ok(words) }
}

/// A wide integer below two to the power of `bits`.
fn wide(bytes: &[u8], bits: u32) -> Result<i64, DisputeError> {
    let value = long(bytes);
    if value.unsigned_abs() < 1 << bits { Ok(value) } else { Err(DisputeError::Bounds) }
}
