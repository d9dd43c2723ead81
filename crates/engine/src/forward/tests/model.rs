//! Model files from a seed: every family, odd sizes, every format, and numbers at
//! the ends of what a format can say.

use crate::architecture::{ALL, Architecture};
use crate::gguf::GgmlType;
use crate::support::Writer;

/// Scales: the largest, the smallest, denormal ones, none.
const HALVES: [u16; 10] =
    [0x7bff, 0xfbff, 0x0001, 0x8001, 0x03ff, 0x0000, 0x3c00, 0xbc00, 0x0400, 0x2e66];
/// Floats: the largest, the smallest, denormal ones, none, and ordinary ones.
const FLOATS: [u32; 10] = [
    0x7f7f_ffff,
    0xff7f_ffff,
    0x0000_0001,
    0x8000_0001,
    0x007f_ffff,
    0x0000_0000,
    0x3f80_0000,
    0xbf80_0000,
    0x3c23_d70a,
    0x4640_0000,
];

/// A small generator of test numbers (splitmix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// Logits of a vocabulary of 1 to 200: equal, at both ends, or close together.
pub(super) fn logits(random: &mut Random) -> Vec<i32> {
    let len = random.one_of(&[1, 2, 33, 64, 200]);
    let spread = random.one_of(&[1, 2, 5000, i32::MAX]);
    let of = |random: &mut Random| match spread {
        i32::MAX => random.one_of(&[i32::MAX, -i32::MAX, 0]),
        _ => random.below(spread as u64) as i32,
    };
    (0..len).map(|_| of(random)).collect()
}

/// Sizes of a model.
struct Sizes {
    layers: u64,
    width: u64,
    heads: u64,
    kv_heads: u64,
    dims: u64,
    rotated: u64,
    feed: u64,
    vocabulary: u64,
}

impl Sizes {
    fn new(random: &mut Random) -> Self {
        let dims = random.one_of(&[16, 16, 32, 48, 80, 112, 256]);
        let kv_heads = 1 + random.below(if dims > 100 { 1 } else { 3 });
        Self {
            layers: 1 + random.below(2),
            width: random.one_of(&[16, 48, 80, 96, 256, 256]),
            heads: kv_heads * (1 + random.below(if dims > 100 { 2 } else { 4 })),
            kv_heads,
            dims,
            rotated: 2 * (1 + random.below(dims / 2)),
            feed: random.one_of(&[16, 32, 112, 256, 256]),
            vocabulary: random.one_of(&[1, 2, 15, 16, 17, 40]),
        }
    }
}

/// A model file.
pub(super) fn writer(random: &mut Random) -> Writer {
    let family = &ALL[random.below(ALL.len() as u64) as usize];
    let sizes = Sizes::new(random);
    let mut writer = header(family, &sizes, random);
    let tensors = matrices(family, &sizes);
    let ends = [("token_embd.weight", sizes.width, sizes.vocabulary)];
    let head = [("output.weight", sizes.width, sizes.vocabulary)];
    for (name, cols, rows) in
        ends.into_iter().chain(head.into_iter().take(random.below(2) as usize))
    {
        writer = matrix(writer, name, cols, rows, random);
    }
    writer = vector(writer, "output_norm.weight", sizes.width, random);
    for layer in 0..sizes.layers {
        for &(name, cols, rows) in &tensors {
            writer = matrix(writer, &format!("blk.{layer}.{name}.weight"), cols, rows, random);
        }
        for (name, len) in vectors(family, &sizes) {
            writer = vector(writer, &format!("blk.{layer}.{name}"), len, random);
        }
    }
    writer
}

fn header(family: &Architecture, sizes: &Sizes, random: &mut Random) -> Writer {
    let key = |key: &str| format!("{}.{key}", family.name);
    let mut writer = Writer::default()
        .str("general.architecture", family.name)
        .u32(&key("block_count"), sizes.layers as u32)
        .u32(&key("context_length"), random.one_of(&[67, 1 << 20]))
        .u32(&key("embedding_length"), sizes.width as u32)
        .u32(&key("feed_forward_length"), sizes.feed as u32)
        .u32(&key("attention.head_count"), sizes.heads as u32)
        .u32(&key("attention.head_count_kv"), sizes.kv_heads as u32)
        .u32(&key("attention.key_length"), sizes.dims as u32)
        .u32(&key("rope.dimension_count"), sizes.rotated as u32)
        .f32(
            &key("attention.layer_norm_rms_epsilon"),
            random.one_of(&[0.0, f32::from_bits(1), 1e-6, 0.999]),
        )
        .f32(&key("rope.freq_base"), random.one_of(&[1.000_000_1, 10_000.0, f32::MAX]));
    if random.below(2) == 0 {
        let length = random.one_of(&[0, 1, 2, 17, u32::MAX]);
        writer = writer.u32(&key("attention.sliding_window"), length);
    }
    if random.below(2) == 0 {
        let period = random.one_of(&[0, 1, 2, u32::MAX]);
        writer = writer.u32(&key("attention.sliding_window_pattern"), period);
    }
    for cap in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if random.below(2) == 0 {
            writer = writer.f32(&key(cap), random.one_of(&[0.0, 4.0, 700_000.0]));
        }
    }
    if random.below(4) == 0 {
        writer = writer
            .str(&key("rope.scaling.type"), "yarn")
            .f32(&key("rope.scaling.factor"), random.one_of(&[f32::from_bits(1), 1.0, 8000.0]))
            .f32(&key("rope.scaling.attn_factor"), random.one_of(&[1e-38, 0.5, 1.0]));
    }
    writer
}

/// A layer's matrices: name, columns, rows.
fn matrices(family: &Architecture, sizes: &Sizes) -> Vec<(&'static str, u64, u64)> {
    let Sizes { width, feed, .. } = *sizes;
    let (all, kv) = (sizes.heads * sizes.dims, sizes.kv_heads * sizes.dims);
    let mut names = vec![("attn_output", all, width), ("ffn_down", feed, width)];
    if family.fused {
        names.extend([("attn_qkv", width, all + 2 * kv), ("ffn_up", width, 2 * feed)]);
    } else {
        names.extend([("attn_q", width, all), ("attn_k", width, kv), ("attn_v", width, kv)]);
        names.extend([("ffn_gate", width, feed), ("ffn_up", width, feed)]);
    }
    names
}

/// A layer's vectors: name, length.
fn vectors(family: &Architecture, sizes: &Sizes) -> Vec<(&'static str, u64)> {
    let Sizes { width, dims, .. } = *sizes;
    let (all, kv) = (sizes.heads * dims, sizes.kv_heads * dims);
    let mut names = vec![("attn_norm.weight", width), ("ffn_norm.weight", width)];
    if family.biases {
        names.extend([("attn_q.bias", all), ("attn_k.bias", kv), ("attn_v.bias", kv)]);
    }
    if family.head_norms {
        names.extend([("attn_q_norm.weight", dims), ("attn_k_norm.weight", dims)]);
    }
    if family.post_norms {
        names.extend([("post_attention_norm.weight", width), ("post_ffw_norm.weight", width)]);
    }
    names
}

fn vector(writer: Writer, name: &str, len: u64, random: &mut Random) -> Writer {
    let kinds = [GgmlType::F32, GgmlType::F16, GgmlType::BF16];
    let kind = random.one_of(&kinds);
    writer.tensor(name, &[len], kind.number(), &floats(kind, len, random))
}

fn matrix(writer: Writer, name: &str, cols: u64, rows: u64, random: &mut Random) -> Writer {
    let kinds: Vec<GgmlType> =
        GgmlType::all().filter(|kind| cols.is_multiple_of(kind.block_elements())).collect();
    let kind = random.one_of(&kinds);
    let data = match kind {
        GgmlType::F32 | GgmlType::F16 | GgmlType::BF16 => floats(kind, cols * rows, random),
        _ => blocks(kind, cols * rows / kind.block_elements(), random),
    };
    writer.tensor(name, &[cols, rows], kind.number(), &data)
}

/// Floats from a few ends of their range, or ordinary ones of any sign.
fn floats(kind: GgmlType, len: u64, random: &mut Random) -> Vec<u8> {
    let ends = [random.one_of(&FLOATS), random.one_of(&FLOATS)];
    let halves = [random.one_of(&HALVES), random.one_of(&HALVES)];
    let ordinary = random.below(2) == 0;
    let mut bytes = Vec::new();
    for _ in 0..len {
        let (any, at) = (random.next() as u32, random.below(2) as usize);
        match kind {
            GgmlType::F16 if ordinary => bytes.extend((0x2c00 ^ any as u16 & 0x8fff).to_le_bytes()),
            GgmlType::F16 => bytes.extend(halves[at].to_le_bytes()),
            // Two to the power of -3 to 0.
            _ => {
                let word = if ordinary { 0x3e00_0000 ^ any & 0x80ff_ffff } else { ends[at] };
                let word = word.to_le_bytes();
                bytes.extend(if kind == GgmlType::F32 { &word[..] } else { &word[2..] });
            }
        }
    }
    bytes
}

/// Where a block's scale lies, and its minimum after it, where there is one.
fn scales_at(kind: GgmlType) -> (usize, usize) {
    match kind {
        GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q4K | GgmlType::Q5K => (0, 2),
        GgmlType::Q2K => (80, 2),
        GgmlType::Q3K => (108, 1),
        GgmlType::Q6K => (208, 1),
        _ => (0, 1),
    }
}

/// Blocks of all ones, of zeros, of alternating bits or of random ones, with
/// scales from the ends of their range or ordinary ones.
fn blocks(kind: GgmlType, count: u64, random: &mut Random) -> Vec<u8> {
    let fill =
        random.one_of(&[Some([0xff, 0xff]), Some([0x80, 0x7f]), Some([0x55, 0xaa]), None, None]);
    let ends = [random.one_of(&HALVES), random.one_of(&HALVES)];
    let (one, ordinary) = (random.below(2) == 0, random.below(3) > 0);
    let (at, scales) = scales_at(kind);
    let mut bytes = Vec::new();
    for _ in 0..count {
        let start = bytes.len();
        bytes.extend((0..kind.block_bytes() as usize).map(|at| match fill {
            Some(both) => both[at % 2],
            None => random.next() as u8,
        }));
        for scale in 0..scales {
            let half = match (ordinary, one) {
                (true, _) => 0x1c00 ^ random.next() as u16 & 0x87ff,
                (false, true) => ends[scale],
                (false, false) => random.one_of(&ends),
            };
            bytes[start + at + 2 * scale..][..2].copy_from_slice(&half.to_le_bytes());
        }
    }
    bytes
}
