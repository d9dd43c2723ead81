//! What a transcript commits to below the leaves: every layer at every position.
//!
//! A *cell* is one layer at one position. It reads the residual row that enters
//! the layer and the keys and values of the positions before, and it gives the
//! row that enters the next layer and a row of keys and values. A leaf's
//! [`layers_digest`] covers the rows that enter all layers at its
//! position; the [`kv_root`] in the receipt covers the keys and values of all
//! layers at all positions. Both are plain BLAKE3 trees over the integers' bytes, so a
//! provider opens any part of them with [`ranges`](crate::ranges), and one cell can
//! be recomputed by whoever has one layer's weights.
//!
//! The keys of these digests are the same for every offer: what was computed of a
//! beginning serves every offer that begins so. That it was computed at all is
//! what the digests of state and logits beside them show, which are the offer's.
//!
//! Absent here: the integers themselves, and whether they are right.

use std::collections::BTreeSet;

use peerproof_wire::limits::{MAX_CELL_BYTES, MAX_CELL_PRODUCTS_BYTES};
use peerproof_wire::{Cell, Digest, Offer, Receipt};

mod opening;

use crate::hash::Tagged;
use crate::transcript::hash_integers;

pub use opening::{CellError, Dimensions, Exposed, Exposure, Opened, open, verify};

/// Positions whose keys and values one digest covers.
pub const KV_PAGE: usize = 64;

/// Digest of the residual rows that enter the layers at one position, in the order of layers.
#[must_use]
pub fn layers_digest(rows: &[i32]) -> Digest {
    hash_integers(&layers_key(), rows)
}

/// The BLAKE3 key behind [`layers_digest`], for opening parts of the rows.
#[must_use]
pub fn layers_key() -> Digest {
    Tagged::new("peerproof layers v1").finish()
}

/// Digest of one layer's rows of keys and values at up to [`KV_PAGE`] positions
/// in order. A row holds, for each key-value head, the key, its exponent, the
/// value and its exponent, as little-endian 16-bit integers.
#[must_use]
pub fn kv_page(rows: &[u8]) -> Digest {
    Digest::from_bytes(*blake3::keyed_hash(kv_key().as_bytes(), rows).as_bytes())
}

/// The BLAKE3 key behind [`kv_page`], for opening parts of a page.
#[must_use]
pub fn kv_key() -> Digest {
    Tagged::new("peerproof keys and values v1").finish()
}

/// Digest of one layer's keys and values at `positions` positions, from those of its pages.
#[must_use]
pub fn kv_layer(layer: u32, positions: u32, pages: &[Digest]) -> Digest {
    let hash = Tagged::new("peerproof kv layer v1").u32(layer).u32(positions);
    pages.iter().fold(hash, |hash, page| hash.fixed(page.as_bytes())).finish()
}

/// Root over the keys and values of all layers, from [`kv_layer`] of each.
#[must_use]
pub fn kv_root(layers: &[Digest]) -> Digest {
    let hash = Tagged::new("peerproof kv root v1").u32(layers.len() as u32);
    layers.iter().fold(hash, |hash, layer| hash.fixed(layer.as_bytes())).finish()
}

/// How many cells of an answer are opened for one request at most: as many as fit
/// [`MAX_CELL_BYTES`] if all stand at its last position. `products` is the most that one of
/// them is shown with.
///
/// ```
/// # use peerproof_proof::cells::{Dimensions, at_most};
/// let small = Dimensions { layers: 30, width: 576, kv_row_bytes: 780 };
/// assert!(at_most(2_000, &small, 0) > 8);
/// ```
#[must_use]
pub fn at_once(receipt: &Receipt, dimensions: &Dimensions, products: u64) -> u32 {
    at_most(receipt.leaves.saturating_sub(1), dimensions, products)
}

/// As [`at_once`], of an answer with so many positions.
#[must_use]
pub fn at_most(positions: u32, dimensions: &Dimensions, products: u64) -> u32 {
    let Dimensions { layers, width, kv_row_bytes } = *dimensions;
    let pages = u64::from(positions).div_ceil(KV_PAGE as u64);
    let page = KV_PAGE as u64 * u64::from(kv_row_bytes) + 64;
    if 8 * products > MAX_CELL_PRODUCTS_BYTES as u64 {
        return 0;
    }
    let most =
        8 * products + pages * page + 32 * u64::from(layers) + 12 * u64::from(width) + (1 << 14);
    (MAX_CELL_BYTES as u64 / most) as u32
}

/// How many cells an answer has, heads included.
#[must_use]
pub fn count(offer: &Offer, receipt: &Receipt, layers: u32) -> u64 {
    let positions = receipt.leaves.saturating_sub(1);
    u64::from(positions) * u64::from(layers) + u64::from(heads(offer, receipt))
}

/// Positions that draw a token.
fn heads(offer: &Offer, receipt: &Receipt) -> u32 {
    let tokens = if offer.pooling.is_some() { 0 } else { receipt.output_tokens };
    tokens.min(receipt.leaves.saturating_sub(1))
}

/// The cells that a client nonce draws of an answer, ascending: `wanted` of them, or all
/// if there are fewer. The head counts as a layer behind the last at the positions that
/// draw a token.
///
/// `receipt` must have passed [`verify_terms`](crate::receipt::verify_terms).
#[must_use]
pub fn drawn(
    nonce: &[u8; 32],
    offer: &Offer,
    receipt: &Receipt,
    layers: u32,
    wanted: u32,
) -> BTreeSet<Cell> {
    let positions = receipt.leaves.saturating_sub(1);
    let heads = heads(offer, receipt);
    let all = count(offer, receipt, layers);
    let seed = Tagged::new("peerproof cells v1")
        .fixed(nonce)
        .fixed(receipt.transcript_root.as_bytes())
        .u32(receipt.leaves)
        .u32(layers);
    let mut stream = seed.stream();
    let mut drawn = BTreeSet::new();
    for highest in all.saturating_sub(wanted.into())..all {
        let mut word = [0; 8];
        stream.fill(&mut word);
        let product = u128::from(u64::from_le_bytes(word)) * (u128::from(highest) + 1);
        let candidate = (product >> 64) as u64;
        if !drawn.insert(candidate) {
            drawn.insert(highest);
        }
    }
    let cell = |index: u64| match index.checked_sub(u64::from(positions) * u64::from(layers)) {
        Some(head) => Cell { position: positions - heads + head as u32, layer: layers },
        None => Cell {
            position: (index / u64::from(layers)) as u32,
            layer: (index % u64::from(layers)) as u32,
        },
    };
    drawn.into_iter().map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_told_apart_by_kind_layer_length_and_content() {
        let (rows, bytes) = ([1, -2, 3], [1_u8, 0, 0, 0, 254, 255, 255, 255, 3, 0, 0, 0]);
        assert_ne!(layers_digest(&rows), kv_page(&bytes));
        let (a, b) = (kv_page(&bytes), kv_page(&bytes[1..]));
        let base = kv_layer(0, 128, &[a, b]);
        let others = [
            kv_layer(1, 128, &[a, b]),
            kv_layer(0, 127, &[a, b]),
            kv_layer(0, 128, &[b, a]),
            kv_layer(0, 128, &[a]),
        ];
        assert!(others.iter().all(|other| *other != base));
        assert_ne!(kv_root(&[base, others[0]]), kv_root(&[others[0], base]));
        assert_ne!(kv_root(&[base]), kv_root(&[base, base]));
    }
}
