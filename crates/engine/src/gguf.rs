//! GGUF, versions 2 and 3: the container a model file comes in.
//!
//! A model file is bytes from a stranger. [`Gguf::open`] maps it, walks the
//! header once, checks every length against a named cap and against the bytes
//! that are left, and only then records where things lie. Nothing is copied:
//! keys, strings, arrays and tensors stay in the mapping and are handed out as
//! borrowed slices, so refusing a bad file costs a few MiB at most, whatever it
//! claims to hold. What has been used can be let go of (`Gguf::release`), so
//! that a model and its file need not both lie in memory.
//!
//! Deliberately absent: writing, big-endian files, and any meaning of a key
//! beyond `general.alignment`.

mod error;
mod hash;
mod kind;
mod parse;
mod value;

use std::fs::File;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

pub use error::GgufError;
pub use hash::model_id;
pub use kind::GgmlType;
pub use value::ValueType;

use error::show;
use value::{Array, Value};

/// The largest number of metadata keys a file may hold.
pub const MAX_KEYS: u64 = 16_384;
/// The largest number of tensors a file may hold.
pub const MAX_TENSORS: u64 = 32_768;
/// The longest metadata key, in bytes.
pub const MAX_KEY_BYTES: u64 = 1_024;
/// The longest tensor name, in bytes.
pub const MAX_NAME_BYTES: u64 = 256;
/// The longest metadata string, in bytes.
pub const MAX_STRING_BYTES: u64 = 4 << 20;
/// The largest number of elements in one metadata array.
pub const MAX_ARRAY_ELEMENTS: u64 = 1 << 24;
/// How deep arrays may lie within arrays.
pub const MAX_ARRAY_DEPTH: u32 = 4;
/// The largest number of dimensions of a tensor.
pub const MAX_DIMS: u32 = 4;
/// The largest tensor alignment, in bytes.
pub const MAX_ALIGNMENT: u32 = 1 << 16;
/// The alignment of tensor data where the file doesn't say.
pub const DEFAULT_ALIGNMENT: u32 = 32;
/// Linux maps so many bytes around a page that is touched, where it has them in
/// memory. Between many small tensors that adds up.
const MAPPED_AROUND: usize = 64 << 10;

/// A checked model file: where its keys and tensors lie.
///
/// ```no_run
/// # fn main() -> Result<(), peerproof_engine::gguf::GgufError> {
/// let file = peerproof_engine::gguf::Gguf::open("model.gguf")?;
/// println!("{} has {} tensors", file.str("general.architecture")?, file.tensors().len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Gguf {
    source: Source,
    version: u32,
    alignment: u32,
    data_start: usize,
    /// Sorted by key.
    entries: Vec<Entry>,
    /// In file order.
    tensors: Vec<Info>,
    /// Indices into `tensors`, sorted by name.
    by_name: Vec<u32>,
}

/// One tensor of the file.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// Its name, e.g. `blk.0.attn_q.weight`.
    pub name: &'a str,
    /// The format of its elements.
    pub kind: GgmlType,
    /// One to four dimensions, the fastest-running first (a row's length, then
    /// the number of rows).
    pub dims: &'a [u64],
    /// Its bytes, exactly as many as kind and dimensions ask for.
    pub data: &'a [u8],
}

impl Tensor<'_> {
    /// The number of elements.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.dims.iter().product()
    }

    /// The length of a row, in elements.
    #[must_use]
    pub fn row_len(&self) -> u64 {
        self.dims.first().copied().unwrap_or(1)
    }

    /// The number of rows, all further dimensions taken together.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.dims.iter().skip(1).product()
    }
}

/// Where one metadata value lies.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Span,
    value: Value,
}

/// Where one tensor lies.
#[derive(Clone, Copy, Debug)]
struct Info {
    name: Span,
    kind: GgmlType,
    dims: [u64; MAX_DIMS as usize],
    n_dims: u32,
    /// From the start of the data section.
    offset: u64,
    bytes: u64,
}

/// A range of the file already known to lie within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: usize,
    len: usize,
}

impl Span {
    fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start..self.start + self.len]
    }
}

/// The bytes behind a file.
#[derive(Debug)]
enum Source {
    Mapped(memmap2::Mmap),
    Shared(Arc<[u8]>),
    /// Memory of the file's length, with some stretches filled in.
    Sparse(memmap2::Mmap),
}

impl Deref for Source {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) | Self::Sparse(map) => map,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl Source {
    /// Tells the system that the pages of a range of the file are not needed for
    /// the time being. Who reads them again has the same bytes, read from the
    /// file again. Does nothing for a file in memory.
    fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Self::Mapped(map) = self
            && range.start < range.end
            && range.end <= map.len()
        {
            // SAFETY: the mapping is read-only, so no page of it differs from the
            // file's. A page dropped is filled from the file when it is next read, by
            // whatever thread and through whatever slice: what any reader sees doesn't
            // change. That holds for the whole pages which the range is widened to as
            // well. The range lies in the mapping.
            #[allow(unsafe_code, reason = "dropping pages is unsafe by nature; see SAFETY")]
            let dropped = unsafe {
                map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    range.start,
                    range.len(),
                )
            };
            // Only a hint: where it fails the pages stay.
            let _ = dropped;
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

/// Maps a file for reading.
fn map(path: &Path) -> Result<memmap2::Mmap, GgufError> {
    let io = |source| GgufError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    if !file.metadata().map_err(io)?.is_file() {
        return Err(io(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "not a regular file",
        )));
    }
    // SAFETY: the mapping is read-only. The model store never writes to a file in
    // place (it writes beside it and renames), so the bytes under the mapping don't
    // change. Whoever may write to the file by hand can break that: truncating it
    // while it is being read here ends this process with SIGBUS, as with any mapped
    // file. Once a model is loaded nothing reads the mapping any more.
    #[allow(unsafe_code, reason = "mapping a file is unsafe by nature; see SAFETY")]
    unsafe { memmap2::MmapOptions::new().map(&file) }.map_err(io)
}

impl Gguf {
    /// Maps a file and checks its header.
    ///
    /// # Errors
    /// The file can't be read, or breaks a rule; the error names key or tensor.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, GgufError> {
        Self::build(Source::Mapped(map(path.as_ref())?))
    }

    /// Checks a file that is already in memory.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn parse(bytes: impl Into<Arc<[u8]>>) -> Result<Self, GgufError> {
        Self::build(Source::Shared(bytes.into()))
    }

    /// Checks a file of `length` bytes of which only some stretches are there; the rest
    /// reads as zeros, and takes no memory. The header must be among them: see
    /// [`header_bytes`](Self::header_bytes).
    ///
    /// # Errors
    /// As [`Gguf::open`]; or a stretch isn't within the file.
    pub fn sparse(length: u64, parts: &[(u64, &[u8])]) -> Result<Self, GgufError> {
        let io = |source| GgufError::Io { path: "memory".into(), source };
        let outside = || io(std::io::ErrorKind::InvalidInput.into());
        let length = usize::try_from(length).map_err(|_| outside())?;
        // Without the reservation, a file may be longer than the machine's memory: only
        // the stretches are ever written.
        let options = memmap2::MmapOptions::new().len(length.max(1)).no_reserve_swap().to_owned();
        let mut memory = options.map_anon().map_err(io)?;
        for (start, bytes) in parts {
            let start = usize::try_from(*start).map_err(|_| outside())?;
            let place = start.checked_add(bytes.len()).and_then(|end| memory.get_mut(start..end));
            place.ok_or_else(outside)?.copy_from_slice(bytes);
        }
        Self::build(Source::Sparse(memory.make_read_only().map_err(io)?))
    }

    fn build(source: Source) -> Result<Self, GgufError> {
        let header = parse::header(&source)?;
        Ok(Self {
            source,
            version: header.version,
            alignment: header.alignment,
            data_start: header.data_start,
            entries: header.entries,
            tensors: header.tensors,
            by_name: header.by_name,
        })
    }

    /// The whole file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.source
    }

    /// The format version, 2 or 3.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The alignment of tensors within the data section, in bytes.
    #[must_use]
    pub fn alignment(&self) -> u32 {
        self.alignment
    }

    /// The model id: BLAKE3 of the whole file.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        hash::parallel(&self.source)
    }

    /// All metadata keys with the types of their values, sorted by key.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = (&str, ValueType)> {
        self.entries.iter().map(|entry| (self.text(entry.key), entry.value.kind()))
    }

    /// All tensors in file order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = Tensor<'_>> {
        self.tensors.iter().map(|info| self.resolve(info))
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// [`GgufError::MissingTensor`].
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>, GgufError> {
        self.optional_tensor(name)
            .ok_or_else(|| GgufError::MissingTensor { name: show(name.as_bytes()) })
    }

    /// The tensor of that name, if there is one.
    #[must_use]
    pub fn optional_tensor(&self, name: &str) -> Option<Tensor<'_>> {
        let name_of = |index: u32| self.tensors[index as usize].name.of(&self.source);
        let found = self.by_name.binary_search_by(|&index| name_of(index).cmp(name.as_bytes()));
        found.ok().map(|at| self.resolve(&self.tensors[self.by_name[at] as usize]))
    }

    /// A span that parsing has checked to be UTF-8.
    fn text(&self, span: Span) -> &str {
        std::str::from_utf8(span.of(&self.source)).unwrap_or_default()
    }

    /// Lets go of the pages of bytes that lie in this file, and of what the system
    /// has mapped around them. Reading any of it again is allowed and gives the
    /// same bytes, from the file.
    pub(crate) fn release(&self, bytes: &[u8]) {
        let Some(start) = bytes.as_ptr().addr().checked_sub(self.source.as_ptr().addr()) else {
            return;
        };
        let end = start.saturating_add(bytes.len()).saturating_add(MAPPED_AROUND);
        self.source.release(start.saturating_sub(MAPPED_AROUND)..end.min(self.source.len()));
    }

    /// Where a tensor's bytes lie in the file.
    pub(crate) fn range_of(&self, tensor: &Tensor<'_>) -> Range<u64> {
        let start = tensor.data.as_ptr().addr() - self.source.as_ptr().addr();
        start as u64..(start + tensor.data.len()) as u64
    }

    /// Bytes before the first tensor's: all that keys and tensors' names and shapes take.
    #[must_use]
    pub fn header_bytes(&self) -> u64 {
        self.data_start as u64
    }

    fn resolve<'a>(&'a self, info: &'a Info) -> Tensor<'a> {
        let span = Span { start: self.data_start + info.offset as usize, len: info.bytes as usize };
        Tensor {
            name: self.text(info.name),
            kind: info.kind,
            dims: &info.dims[..info.n_dims as usize],
            data: span.of(&self.source),
        }
    }

    fn value(&self, key: &str) -> Option<Value> {
        let key_of = |entry: &Entry| entry.key.of(&self.source);
        let found = self.entries.binary_search_by(|entry| key_of(entry).cmp(key.as_bytes()));
        found.ok().map(|at| self.entries[at].value)
    }
}

/// The typed getters. Each comes in two forms: the plain one fails where the
/// key is missing, the `optional_` one gives `None`; both fail where the value
/// has another type.
impl Gguf {
    /// An unsigned integer of any width that fits 32 bits.
    ///
    /// # Errors
    /// The key is missing, or its value is not such a number.
    pub fn u32(&self, key: &str) -> Result<u32, GgufError> {
        required(key, self.optional_u32(key)?)
    }

    /// As [`Gguf::u32`], `None` where the key is missing.
    ///
    /// # Errors
    /// The value is not an unsigned number below 2^32.
    pub fn optional_u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.typed(key, "an unsigned 32-bit number", |value| {
            value.integer().and_then(|wide| u32::try_from(wide).ok())
        })
    }

    /// A 32-bit float.
    ///
    /// # Errors
    /// The key is missing, or its value is not a float.
    pub fn f32(&self, key: &str) -> Result<f32, GgufError> {
        required(key, self.optional_f32(key)?)
    }

    /// As [`Gguf::f32`], `None` where the key is missing.
    ///
    /// # Errors
    /// The value is not a 32-bit float.
    pub fn optional_f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.typed(key, "a 32-bit float", |value| match value {
            Value::F32(bits) => Some(f32::from_bits(bits)),
            _ => None,
        })
    }

    /// A truth value.
    ///
    /// # Errors
    /// The key is missing, or its value is not a truth value.
    pub fn bool(&self, key: &str) -> Result<bool, GgufError> {
        required(key, self.optional_bool(key)?)
    }

    /// As [`Gguf::bool`], `None` where the key is missing.
    ///
    /// # Errors
    /// The value is not a truth value.
    pub fn optional_bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a truth value", |value| match value {
            Value::Bool(bit) => Some(bit),
            _ => None,
        })
    }

    /// A UTF-8 string.
    ///
    /// # Errors
    /// The key is missing, or its value is not a string, or not UTF-8.
    pub fn str(&self, key: &str) -> Result<&str, GgufError> {
        required(key, self.optional_str(key)?)
    }

    /// As [`Gguf::str`], `None` where the key is missing.
    ///
    /// # Errors
    /// The value is not a string, or not UTF-8.
    pub fn optional_str(&self, key: &str) -> Result<Option<&str>, GgufError> {
        let span = self.typed(key, "a string", |value| match value {
            Value::Str(span) => Some(span),
            _ => None,
        })?;
        let Some(span) = span else { return Ok(None) };
        std::str::from_utf8(span.of(&self.source))
            .map(Some)
            .map_err(|_| GgufError::NotUtf8 { place: show(key.as_bytes()) })
    }

    /// An array of strings, as bytes: a vocabulary may hold pieces of
    /// characters.
    ///
    /// # Errors
    /// The key is missing, or its value is not an array of strings.
    pub fn strings(&self, key: &str) -> Result<Strings<'_>, GgufError> {
        required(key, self.optional_strings(key)?)
    }

    /// As [`Gguf::strings`], `None` where the key is missing.
    ///
    /// # Errors
    /// The value is not an array of strings.
    pub fn optional_strings(&self, key: &str) -> Result<Option<Strings<'_>>, GgufError> {
        let array = self.array(key, ValueType::Str, "an array of strings")?;
        Ok(array.map(|array| Strings { rest: array.span.of(&self.source), left: array.len }))
    }

    /// An array of 32-bit floats.
    ///
    /// # Errors
    /// The key is missing, or its value is not such an array.
    pub fn f32s(&self, key: &str) -> Result<impl ExactSizeIterator<Item = f32>, GgufError> {
        let array = required(key, self.array(key, ValueType::F32, "an array of 32-bit floats")?)?;
        Ok(self.words(array).map(|word| f32::from_bits(u32::from_le_bytes(word))))
    }

    /// An array of signed 32-bit numbers.
    ///
    /// # Errors
    /// The key is missing, or its value is not such an array.
    pub fn i32s(&self, key: &str) -> Result<impl ExactSizeIterator<Item = i32>, GgufError> {
        let what = "an array of signed 32-bit numbers";
        let array = required(key, self.array(key, ValueType::I32, what)?)?;
        Ok(self.words(array).map(i32::from_le_bytes))
    }

    /// An array of unsigned 32-bit numbers.
    ///
    /// # Errors
    /// The key is missing, or its value is not such an array.
    pub fn u32s(&self, key: &str) -> Result<impl ExactSizeIterator<Item = u32>, GgufError> {
        let what = "an array of unsigned 32-bit numbers";
        let array = required(key, self.array(key, ValueType::U32, what)?)?;
        Ok(self.words(array).map(u32::from_le_bytes))
    }

    /// Whether the file has that key.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &'static str,
        take: impl Fn(Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        take(value).map(Some).ok_or_else(|| GgufError::WrongType {
            key: show(key.as_bytes()),
            expected,
            got: value.describe(),
        })
    }

    fn array(
        &self,
        key: &str,
        element: ValueType,
        expected: &'static str,
    ) -> Result<Option<Array>, GgufError> {
        self.typed(key, expected, |value| match value {
            Value::Array(array) if array.element == element => Some(array),
            _ => None,
        })
    }

    fn words(&self, array: Array) -> impl ExactSizeIterator<Item = [u8; 4]> {
        let (words, _) = array.span.of(&self.source).as_chunks::<4>();
        words.iter().copied()
    }
}

fn required<T>(key: &str, value: Option<T>) -> Result<T, GgufError> {
    value.ok_or_else(|| GgufError::MissingKey { key: show(key.as_bytes()) })
}

/// The strings of an array, in order, each as raw bytes.
#[derive(Clone, Debug)]
pub struct Strings<'a> {
    /// Begins at the next string's length; parsing has walked it once.
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.left == 0 {
            return None;
        }
        let (length, rest) = self.rest.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (text, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        self.left -= 1;
        Some(text)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Strings<'_> {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn released_pages_are_read_again_from_the_file() {
        // Any file of some size will do: this test's own program.
        let path = std::env::current_exe().unwrap();
        let expected = std::fs::read(&path).unwrap();
        let source = Source::Mapped(map(&path).unwrap());
        let len = expected.len();
        for range in [0..len, 1..len - 1, 4097..65_537, len - 1..len, 5..5, 0..len + 1, len..len] {
            assert!(*source == *expected, "before {range:?}");
            source.release(range.clone());
            assert!(*source == *expected, "after {range:?}");
        }
        assert_eq!(model_id(&path).unwrap(), *blake3::hash(&expected).as_bytes());
    }
}
