//! A small GGUF writer, so that tests can make valid files and lying ones.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary includes this module and uses a part of it"
)]

/// Bytes in the making, in the container's own terms.
#[derive(Clone, Default)]
pub struct Writer {
    keys: Vec<Vec<u8>>,
    infos: Vec<Vec<u8>>,
    data: Vec<u8>,
    /// Overrides for lies about counts.
    pub key_count: Option<u64>,
    pub tensor_count: Option<u64>,
    pub version: Option<u32>,
    pub alignment: Option<u32>,
}

pub fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The numbers of value types.
pub const U8: u32 = 0;
pub const U32: u32 = 4;
pub const I32: u32 = 5;
pub const F32: u32 = 6;
pub const BOOL: u32 = 7;
pub const STR: u32 = 8;
pub const ARRAY: u32 = 9;

impl Writer {
    /// A key with the raw bytes of its value.
    pub fn raw(mut self, key: impl AsRef<[u8]>, kind: u32, value: &[u8]) -> Self {
        self.keys.push([&string(key.as_ref()), &kind.to_le_bytes()[..], value].concat());
        self
    }

    pub fn u32(self, key: &str, value: u32) -> Self {
        self.raw(key, U32, &value.to_le_bytes())
    }

    pub fn f32(self, key: &str, value: f32) -> Self {
        self.raw(key, F32, &value.to_le_bytes())
    }

    pub fn bool(self, key: &str, value: bool) -> Self {
        self.raw(key, BOOL, &[u8::from(value)])
    }

    pub fn str(self, key: &str, value: &str) -> Self {
        self.raw(key, STR, &string(value.as_bytes()))
    }

    /// An array whose elements are already bytes.
    pub fn array(self, key: &str, element: u32, len: u64, elements: &[u8]) -> Self {
        let value = [&element.to_le_bytes()[..], &len.to_le_bytes(), elements].concat();
        self.raw(key, ARRAY, &value)
    }

    pub fn strings<T: AsRef<[u8]>>(self, key: &str, values: &[T]) -> Self {
        let elements: Vec<u8> = values.iter().flat_map(|value| string(value.as_ref())).collect();
        self.array(key, STR, values.len() as u64, &elements)
    }

    pub fn i32s(self, key: &str, values: &[i32]) -> Self {
        let elements: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.array(key, I32, values.len() as u64, &elements)
    }

    /// A tensor's entry exactly as told, true or not.
    pub fn info(mut self, name: impl AsRef<[u8]>, dims: &[u64], kind: u32, offset: u64) -> Self {
        let mut info = string(name.as_ref());
        info.extend((dims.len() as u32).to_le_bytes());
        info.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        info.extend(kind.to_le_bytes());
        info.extend(offset.to_le_bytes());
        self.infos.push(info);
        self
    }

    /// A tensor with its data, placed after the ones before it.
    pub fn tensor(mut self, name: &str, dims: &[u64], kind: u32, data: &[u8]) -> Self {
        let alignment = self.alignment.unwrap_or(32) as usize;
        self.data.resize(self.data.len().next_multiple_of(alignment), 0);
        let offset = self.data.len() as u64;
        self.data.extend(data);
        self.info(name, dims, kind, offset)
    }

    /// Another value for a number that is there.
    pub fn changed(mut self, key: &str, value: u32) -> Self {
        let start = [&string(key.as_bytes())[..], &U32.to_le_bytes()].concat();
        let entry = self.keys.iter_mut().find(|entry| entry.starts_with(&start));
        entry.expect("a number of that name")[start.len()..].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// Another text for one that is there.
    pub fn retold(mut self, key: &str, text: &str) -> Self {
        let start = [&string(key.as_bytes())[..], &STR.to_le_bytes()].concat();
        let entry = self.keys.iter_mut().find(|entry| entry.starts_with(&start));
        let entry = entry.expect("a text of that name");
        entry.truncate(start.len());
        entry.extend(string(text.as_bytes()));
        self
    }

    /// A tensor's data as repeats of a pattern.
    pub fn filled(mut self, name: &str, pattern: &[u8]) -> Self {
        let start = string(name.as_bytes());
        let at = self.infos.iter().position(|info| info.starts_with(&start));
        let at = at.expect("a tensor of that name");
        let offset = |info: &[u8]| {
            u64::from_le_bytes(info[info.len() - 8..].try_into().expect("8 bytes")) as usize
        };
        let from = offset(&self.infos[at]);
        let to = self.infos.get(at + 1).map_or(self.data.len(), |next| offset(next));
        let bytes = self.data[from..to].iter_mut().zip(pattern.iter().cycle());
        bytes.for_each(|(byte, new)| *byte = *new);
        self
    }

    /// Bytes in the data section that no tensor owns.
    pub fn room(mut self, bytes: usize) -> Self {
        self.data.resize(self.data.len() + bytes, 0);
        self
    }

    pub fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.unwrap_or(3).to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.infos.len() as u64).to_le_bytes());
        out.extend(self.key_count.unwrap_or(self.keys.len() as u64).to_le_bytes());
        out.extend(self.keys.concat());
        out.extend(self.infos.concat());
        out
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        let alignment = self.alignment.unwrap_or(32) as usize;
        out.resize(out.len().next_multiple_of(alignment), 0);
        out.extend(&self.data);
        out
    }
}

/// The default model, or a message that says how to get it.
pub fn real_model() -> std::path::PathBuf {
    installed("PEERPROOF_TEST_MODEL", "smollm2-135m")
}

/// Gemma 3 270M, or a message that says how to get it.
pub fn gemma() -> std::path::PathBuf {
    installed("PEERPROOF_TEST_GEMMA", "gemma3-270m")
}

fn installed(variable: &str, name: &str) -> std::path::PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| cached_model(name), Into::into);
    assert!(
        path.exists(),
        "{} is missing: run `cargo run --release -- models pull {name}` first",
        path.display()
    );
    path
}

fn cached_model(name: &str) -> std::path::PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || std::path::PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
        Into::into,
    );
    cache.join(format!("peerproof/models/{name}.gguf"))
}
