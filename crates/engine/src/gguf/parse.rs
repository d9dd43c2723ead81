//! One walk over the header. Every length meets its cap and the bytes that are
//! left before anything of that length is reserved or skipped.

use super::error::show;
use super::value::{Array, Value, ValueType};
use super::{
    DEFAULT_ALIGNMENT, Entry, GgmlType, GgufError, Info, MAX_ALIGNMENT, MAX_ARRAY_DEPTH,
    MAX_ARRAY_ELEMENTS, MAX_DIMS, MAX_KEY_BYTES, MAX_KEYS, MAX_NAME_BYTES, MAX_STRING_BYTES,
    MAX_TENSORS, Span,
};

const ALIGNMENT_KEY: &[u8] = b"general.alignment";
/// Key length, one byte of key, type, one byte of value.
const SMALLEST_ENTRY: u64 = 8 + 1 + 4 + 1;
/// Name length, one byte of name, count of dimensions, one of them, kind, offset.
const SMALLEST_INFO: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// All that the header says.
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) alignment: u32,
    pub(super) data_start: usize,
    pub(super) entries: Vec<Entry>,
    pub(super) tensors: Vec<Info>,
    pub(super) by_name: Vec<u32>,
}

pub(super) fn header(bytes: &[u8]) -> Result<Header, GgufError> {
    let mut reader = Reader { bytes, at: 0 };
    let version = preamble(&mut reader)?;
    let tensor_count = reader.u64(|| "tensor count".into())?;
    let key_count = reader.u64(|| "key count".into())?;
    reader.count("header", "tensor count", tensor_count, MAX_TENSORS, SMALLEST_INFO)?;
    reader.count("header", "key count", key_count, MAX_KEYS, SMALLEST_ENTRY)?;
    let entries = entries(&mut reader, key_count)?;
    let alignment = alignment(bytes, &entries)?;
    let tensors = infos(&mut reader, tensor_count)?;
    let by_name = names(bytes, &tensors)?;
    let data_start = reader.at.next_multiple_of(alignment as usize);
    placement(bytes, &tensors, data_start, alignment)?;
    Ok(Header { version, alignment, data_start, entries, tensors, by_name })
}

fn preamble(reader: &mut Reader<'_>) -> Result<u32, GgufError> {
    let magic = reader.take(4, || "magic".into())?.of(reader.bytes);
    if magic != b"GGUF" {
        return Err(GgufError::Magic { got: show(magic) });
    }
    match reader.u32(|| "version".into())? {
        version @ (2 | 3) => Ok(version),
        got => Err(GgufError::Version { got }),
    }
}

fn entries(reader: &mut Reader<'_>, count: u64) -> Result<Vec<Entry>, GgufError> {
    let mut entries = Vec::with_capacity(count as usize);
    for index in 0..count {
        let key = reader.name("key", index, MAX_KEY_BYTES)?;
        let value = reader.value(key.of(reader.bytes))?;
        entries.push(Entry { key, value });
    }
    let bytes = reader.bytes;
    entries.sort_unstable_by(|a, b| a.key.of(bytes).cmp(b.key.of(bytes)));
    match entries.windows(2).find(|pair| pair[0].key.of(bytes) == pair[1].key.of(bytes)) {
        Some(pair) => Err(GgufError::DuplicateKey { key: show(pair[0].key.of(bytes)) }),
        None => Ok(entries),
    }
}

fn alignment(bytes: &[u8], entries: &[Entry]) -> Result<u32, GgufError> {
    let Some(entry) = entries.iter().find(|entry| entry.key.of(bytes) == ALIGNMENT_KEY) else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    let Value::Integer(ValueType::U32, wide) = entry.value else {
        return Err(GgufError::WrongType {
            key: show(ALIGNMENT_KEY),
            expected: "an unsigned 32-bit number",
            got: entry.value.describe(),
        });
    };
    let got = wide as u32;
    if !got.is_power_of_two() || !(8..=MAX_ALIGNMENT).contains(&got) {
        return Err(GgufError::Alignment { limit: MAX_ALIGNMENT, got });
    }
    Ok(got)
}

fn infos(reader: &mut Reader<'_>, count: u64) -> Result<Vec<Info>, GgufError> {
    let mut infos = Vec::with_capacity(count as usize);
    for index in 0..count {
        infos.push(reader.info(index)?);
    }
    Ok(infos)
}

/// The order of the tensors by name; a name may occur once.
fn names(bytes: &[u8], tensors: &[Info]) -> Result<Vec<u32>, GgufError> {
    let name = |index: &u32| tensors[*index as usize].name.of(bytes);
    let mut order: Vec<u32> = (0..tensors.len() as u32).collect();
    order.sort_unstable_by(|a, b| name(a).cmp(name(b)));
    match order.windows(2).find(|pair| name(&pair[0]) == name(&pair[1])) {
        Some(pair) => Err(GgufError::DuplicateTensor { name: show(name(&pair[0])) }),
        None => Ok(order),
    }
}

/// Every tensor aligned, within the file, and apart from every other.
fn placement(
    bytes: &[u8],
    tensors: &[Info],
    data_start: usize,
    alignment: u32,
) -> Result<(), GgufError> {
    let room = bytes.len().saturating_sub(data_start) as u64;
    for info in tensors {
        let name = || show(info.name.of(bytes));
        if !info.offset.is_multiple_of(u64::from(alignment)) {
            let expected = u64::from(alignment);
            return Err(GgufError::Misaligned { name: name(), expected, got: info.offset });
        }
        let end = u128::from(info.offset) + u128::from(info.bytes);
        if end > u128::from(room) {
            return Err(GgufError::BeyondFile { name: name(), expected: room, got: end });
        }
    }
    let mut order: Vec<u32> = (0..tensors.len() as u32).collect();
    order.sort_unstable_by_key(|&index| tensors[index as usize].offset);
    for pair in order.windows(2) {
        let [first, second] = [pair[0], pair[1]].map(|index| &tensors[index as usize]);
        if first.offset + first.bytes > second.offset {
            return Err(GgufError::Overlap {
                name: show(second.name.of(bytes)),
                other: show(first.name.of(bytes)),
            });
        }
    }
    Ok(())
}

/// A place in the file that only moves forward.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    fn take(&mut self, len: u64, place: impl FnOnce() -> String) -> Result<Span, GgufError> {
        if len > self.left() {
            return Err(GgufError::Truncated { place: place(), expected: len, got: self.left() });
        }
        let span = Span { start: self.at, len: len as usize };
        self.at += span.len;
        Ok(span)
    }

    fn array<const N: usize>(
        &mut self,
        place: impl FnOnce() -> String,
    ) -> Result<[u8; N], GgufError> {
        let span = self.take(N as u64, place)?;
        let mut out = [0; N];
        out.copy_from_slice(span.of(self.bytes));
        Ok(out)
    }

    fn u32(&mut self, place: impl FnOnce() -> String) -> Result<u32, GgufError> {
        self.array(place).map(u32::from_le_bytes)
    }

    fn u64(&mut self, place: impl FnOnce() -> String) -> Result<u64, GgufError> {
        self.array(place).map(u64::from_le_bytes)
    }

    /// A count of things that take at least `smallest` bytes each.
    fn count(
        &self,
        place: &str,
        what: &'static str,
        got: u64,
        limit: u64,
        smallest: u64,
    ) -> Result<(), GgufError> {
        if got > limit {
            return Err(GgufError::OverLimit { place: place.into(), what, limit, got });
        }
        // Both factors are below 2^32, so the product is exact.
        let expected = got * smallest;
        if expected > self.left() {
            let place = format!("{place}, {what}");
            return Err(GgufError::Truncated { place, expected, got: self.left() });
        }
        Ok(())
    }

    /// A key or a tensor's name.
    fn name(&mut self, what: &str, index: u64, limit: u64) -> Result<Span, GgufError> {
        let place = || format!("{what} number {index}");
        let got = self.u64(place)?;
        if got > limit {
            return Err(GgufError::OverLimit { place: place(), what: "a length", limit, got });
        }
        let span = self.take(got, place)?;
        let bytes = span.of(self.bytes);
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.is_empty() && !text.contains(char::is_control) => Ok(span),
            _ => Err(GgufError::BadName { place: place(), got: show(bytes) }),
        }
    }

    fn value(&mut self, key: &[u8]) -> Result<Value, GgufError> {
        let kind = self.value_type(key)?;
        match kind {
            ValueType::Str => self.string(key).map(Value::Str),
            ValueType::Array => self.array_value(key, 1).map(Value::Array),
            _ => self.scalar(key, kind),
        }
    }

    fn value_type(&mut self, key: &[u8]) -> Result<ValueType, GgufError> {
        let got = self.u32(|| at_key(key))?;
        ValueType::from_number(got)
            .ok_or_else(|| GgufError::UnknownValueType { key: show(key), got })
    }

    fn scalar(&mut self, key: &[u8], kind: ValueType) -> Result<Value, GgufError> {
        let place = || at_key(key);
        let wide = match kind {
            ValueType::U8 => i128::from(u8::from_le_bytes(self.array(place)?)),
            ValueType::I8 => i128::from(i8::from_le_bytes(self.array(place)?)),
            ValueType::U16 => i128::from(u16::from_le_bytes(self.array(place)?)),
            ValueType::I16 => i128::from(i16::from_le_bytes(self.array(place)?)),
            ValueType::U32 => i128::from(u32::from_le_bytes(self.array(place)?)),
            ValueType::I32 => i128::from(i32::from_le_bytes(self.array(place)?)),
            ValueType::U64 => i128::from(u64::from_le_bytes(self.array(place)?)),
            ValueType::I64 => i128::from(i64::from_le_bytes(self.array(place)?)),
            ValueType::F32 => return Ok(Value::F32(self.u32(place)?)),
            ValueType::Bool => {
                let [got] = self.array(place)?;
                return boolean(key, got).map(Value::Bool);
            }
            ValueType::F64 | ValueType::Str | ValueType::Array => {
                self.u64(place)?;
                return Ok(Value::F64);
            }
        };
        Ok(Value::Integer(kind, wide))
    }

    fn string(&mut self, key: &[u8]) -> Result<Span, GgufError> {
        let got = self.u64(|| at_key(key))?;
        if got > MAX_STRING_BYTES {
            let (what, limit) = ("a string length", MAX_STRING_BYTES);
            return Err(GgufError::OverLimit { place: at_key(key), what, limit, got });
        }
        self.take(got, || at_key(key))
    }

    fn array_value(&mut self, key: &[u8], depth: u32) -> Result<Array, GgufError> {
        if depth > MAX_ARRAY_DEPTH {
            let (limit, got) = (u64::from(MAX_ARRAY_DEPTH), u64::from(depth));
            let what = "an array depth";
            return Err(GgufError::OverLimit { place: at_key(key), what, limit, got });
        }
        let element = self.value_type(key)?;
        let len = self.u64(|| at_key(key))?;
        // A string takes at least its length, an array its type and length.
        let smallest = element.fixed_bytes().unwrap_or(8);
        self.count(&at_key(key), "array length", len, MAX_ARRAY_ELEMENTS, smallest)?;
        let start = self.at;
        match (element, element.fixed_bytes()) {
            (_, Some(each)) => {
                let span = self.take(len * each, || at_key(key))?;
                if element == ValueType::Bool {
                    span.of(self.bytes).iter().try_for_each(|&got| boolean(key, got).map(drop))?;
                }
            }
            (ValueType::Str, None) => (0..len).try_for_each(|_| self.string(key).map(drop))?,
            (_, None) => (0..len).try_for_each(|_| self.array_value(key, depth + 1).map(drop))?,
        }
        Ok(Array { element, len: len as usize, span: Span { start, len: self.at - start } })
    }

    fn info(&mut self, index: u64) -> Result<Info, GgufError> {
        let name = self.name("tensor", index, MAX_NAME_BYTES)?;
        let bytes = self.bytes;
        let shown = || show(name.of(bytes));
        let place = || format!("tensor {:?}", shown());
        let n_dims = self.u32(place)?;
        if n_dims == 0 || n_dims > MAX_DIMS {
            let (limit, got) = (u64::from(MAX_DIMS), u64::from(n_dims));
            let what = "a number of dimensions";
            return Err(GgufError::OverLimit { place: place(), what, limit, got });
        }
        let mut dims = [1; MAX_DIMS as usize];
        for dim in &mut dims[..n_dims as usize] {
            *dim = self.u64(place)?;
        }
        let number = self.u32(place)?;
        let offset = self.u64(place)?;
        let kind = GgmlType::from_number(number).ok_or_else(|| GgufError::UnknownKind {
            name: shown(),
            got: number,
            known: known(),
        })?;
        let size = size(kind, &dims).map_err(|broken| match broken {
            Broken::Dims => {
                GgufError::Dims { name: shown(), got: dims[..n_dims as usize].to_vec() }
            }
            Broken::Block => GgufError::BrokenBlock {
                name: shown(),
                expected: kind.block_elements(),
                got: dims[0],
            },
        })?;
        Ok(Info { name, kind, dims, n_dims, offset, bytes: size })
    }
}

fn at_key(key: &[u8]) -> String {
    format!("key {:?}", show(key))
}

fn known() -> String {
    GgmlType::all().map(GgmlType::name).collect::<Vec<_>>().join(", ")
}

fn boolean(key: &[u8], got: u8) -> Result<bool, GgufError> {
    match got {
        0 | 1 => Ok(got == 1),
        _ => Err(GgufError::BadBool { key: show(key), got }),
    }
}

/// What is wrong with a tensor's shape.
enum Broken {
    Dims,
    Block,
}

/// The bytes a tensor takes.
fn size(kind: GgmlType, dims: &[u64]) -> Result<u64, Broken> {
    let product = dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
    let elements = product.filter(|&n| n > 0 && n < 1 << 63).ok_or(Broken::Dims)?;
    if !dims[0].is_multiple_of(kind.block_elements()) {
        return Err(Broken::Block);
    }
    (elements / kind.block_elements()).checked_mul(kind.block_bytes()).ok_or(Broken::Dims)
}
