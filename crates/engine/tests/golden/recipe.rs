//! Small model files made from recipes, byte by byte the same in any language:
//! `vectors/engine/golden/README.md` says how. The recipes stand in `small.json`,
//! so whoever recomputes its digests makes the files first.

use peerproof_engine::gguf::GgmlType;
use serde::{Deserialize, Serialize};

use super::support::Writer;

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Value {
    U32(u32),
    F32(f64),
    String(String),
}

/// A tensor: what it is called, how large it is and what fills it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dims: Vec<u64>,
    pub(crate) format: String,
    /// For floats of 32 bits that lie around a number, and how far at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) around: Option<(f64, f64)>,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recipe {
    pub(crate) name: String,
    pub(crate) keys: Vec<(String, Value)>,
    /// Tensors of the file, before those of its layers.
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) layers: u64,
    /// Tensors of each layer, without `blk.N.` in front.
    pub(crate) layer: Vec<Tensor>,
}

impl Recipe {
    /// The bytes of the file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let header = self.keys.iter().fold(Writer::default(), |writer, (key, value)| match value {
            Value::U32(value) => writer.u32(key, *value),
            Value::F32(value) => writer.f32(key, *value as f32),
            Value::String(value) => writer.str(key, value),
        });
        let whole = self.tensors.iter().map(|tensor| (tensor.name.clone(), tensor));
        let layers = (0..self.layers).flat_map(|layer| {
            self.layer.iter().map(move |tensor| (format!("blk.{layer}.{}", tensor.name), tensor))
        });
        let tensors = whole.chain(layers);
        let add = |writer: Writer, (name, tensor): (String, &Tensor)| {
            let data = tensor.data(&self.name, &name);
            writer.tensor(&name, &tensor.dims, tensor.kind().number(), &data)
        };
        tensors.fold(header, add).bytes()
    }
}

impl Tensor {
    pub(crate) fn kind(&self) -> GgmlType {
        let named = |kind: &GgmlType| kind.name() == self.format;
        GgmlType::all().find(named).expect("a format there is")
    }

    fn data(&self, file: &str, name: &str) -> Vec<u8> {
        let kind = self.kind();
        let elements: u64 = self.dims.iter().product();
        let size = kind.block_bytes() as usize;
        let mut bytes = vec![0; (elements / kind.block_elements()) as usize * size];
        let mut hasher = blake3::Hasher::new();
        hasher.update(file.as_bytes()).update(&[0]).update(name.as_bytes());
        hasher.finalize_xof().fill(&mut bytes);
        bytes.chunks_exact_mut(size).for_each(|block| tame(kind, self.around, block));
        bytes
    }
}

/// Makes any bytes a block whose weights are finite and of a useful size.
fn tame(kind: GgmlType, around: Option<(f64, f64)>, block: &mut [u8]) {
    match kind {
        GgmlType::F32 => {
            let bits = u32::from_le_bytes(block.try_into().expect("4 bytes"));
            let bits = match around {
                Some((middle, spread)) => {
                    let step = f64::from(bits & 0x1fff) / 4096.0 - 1.0;
                    ((middle + spread * step) as f32).to_bits()
                }
                None => bits & 0x81ff_ffff | 0x3c00_0000,
            };
            block.copy_from_slice(&bits.to_le_bytes());
        }
        GgmlType::F16 => replace(block, 0, |bits| bits & 0x8fff | 0x2000),
        GgmlType::BF16 => replace(block, 0, |bits| bits & 0x81ff | 0x3c00),
        _ => {
            for &(at, exponent) in scales(kind) {
                replace(block, at, |bits| match bits & 0x7c00 {
                    0 => bits,
                    _ => bits & 0x83ff | exponent << 10,
                });
            }
        }
    }
}

/// Where a block has its 16-bit floats, and the exponents they get.
fn scales(kind: GgmlType) -> &'static [(usize, u16)] {
    match kind {
        GgmlType::Q4_0 => &[(0, 8)],
        GgmlType::Q4_1 => &[(0, 8), (2, 11)],
        GgmlType::Q5_0 => &[(0, 7)],
        GgmlType::Q5_1 => &[(0, 7), (2, 11)],
        GgmlType::Q8_0 | GgmlType::Iq4Nl => &[(0, 4)],
        GgmlType::Q2K => &[(80, 7), (82, 7)],
        GgmlType::Q3K => &[(108, 5)],
        GgmlType::Q4K => &[(0, 3), (2, 6)],
        GgmlType::Q5K => &[(0, 2), (2, 6)],
        GgmlType::Q6K => &[(208, 1)],
        other => panic!("{other} has no scales"),
    }
}

fn replace(block: &mut [u8], at: usize, with: impl Fn(u16) -> u16) {
    let bits = with(u16::from_le_bytes([block[at], block[at + 1]]));
    block[at..at + 2].copy_from_slice(&bits.to_le_bytes());
}
